//! The attachment of a report: every bad outcome and every opt-out to check, for a spreadsheet. Absent: the mail that it
//! goes with (see `render`).

use crate::domain::{
    alarm::TicketRef,
    delivery::Reason,
    report::{DoubtfulOptOut, Report},
    spreadsheet::{MARK, harmless},
};
use jiff::{Timestamp, tz::TimeZone};

const COLUMNS: &str = "ticket,source,subject,url,person,role,phone,state,reason,code,at,nobody_told,meaning,to_do,\
                       delivery_id,alert_id,staff_id";

/// The attachment's text.
pub fn write(report: &Report, zone: &TimeZone) -> String {
    let mut writer = csv::Writer::from_writer(MARK.as_bytes().to_vec());
    let _ = writer.write_record(COLUMNS.split(','));
    let mut write = |cells: [&str; 17]| {
        let _ = writer.write_record(cells.map(harmless));
    };
    let time = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    for row in &report.rows {
        let ticket = row.ticket.as_ref();
        let known = |cell: fn(&TicketRef) -> Option<&str>| ticket.and_then(cell).unwrap_or_default();
        write([
            known(|ticket| ticket.number.as_deref().or(Some(&ticket.id))),
            known(|ticket| Some(&ticket.source)),
            known(|ticket| ticket.subject.as_deref()),
            known(|ticket| ticket.url.as_deref()),
            row.person.as_deref().unwrap_or_default(),
            row.role.as_deref().unwrap_or_default(),
            row.phone.as_deref().unwrap_or_default(),
            row.state.as_str(),
            row.reason.map_or("", Reason::as_str),
            &row.code.map(|code| code.to_string()).unwrap_or_default(),
            &time(row.at),
            if row.nobody_told { "yes" } else { "no" },
            &row.explanation.meaning,
            &row.explanation.advice,
            &row.delivery_id,
            row.alert_id.as_deref().unwrap_or_default(),
            "",
        ]);
    }
    let explanation = DoubtfulOptOut::explanation();
    for opt_out in &report.doubtful_opt_outs {
        let mut cells = [""; 17];
        let (since, staff_id) = (time(opt_out.since), opt_out.staff_id.as_deref());
        cells[6] = &opt_out.phone;
        cells[7] = "opt_out_to_check";
        cells[8] = opt_out.reason.as_deref().unwrap_or_default();
        cells[10] = &since;
        cells[12] = &explanation.meaning;
        cells[13] = &explanation.advice;
        cells[16] = staff_id.unwrap_or_default();
        write(cells);
    }
    writer
        .into_inner()
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default()
}
