//! Messages that an admin or a program wants sent, and no alert is the cause of. From here on they are deliveries as all
//! others are. A request that comes twice with the same key owes one message.

use super::delivery::{self, Birth};
use crate::{
    domain::id::DeliveryId,
    store::{
        Db,
        error::StoreError,
        jobs::NewDelivery,
        query::Query,
        sql::{Sql, args, sql},
        types::ms,
    },
};
use jiff::Timestamp;

/// By what a request is known when it comes again.
pub struct MessageRequest {
    /// The caller's own.
    pub key: String,
    /// Of what was asked for.
    pub digest: String,
    /// What the first one is answered, and every later one too.
    pub answer: String,
}

/// What became of a request to send a message.
pub enum MessageTaken {
    /// It is owed.
    New,
    /// It was before; this was the answer.
    Repeated(String),
    /// The key belongs to a request for something else.
    OtherRequest,
}

impl Db {
    /// Owes a message. Durable when this returns.
    pub async fn send_message(
        &self,
        id: DeliveryId,
        new: NewDelivery,
        request: Option<&MessageRequest>,
        now: Timestamp,
    ) -> Result<MessageTaken, StoreError> {
        // Of two requests at once, PostgreSQL lets the second wait here for the first.
        const KEEP: Sql = sql!(
            "insert into message_request (key, digest, answer, delivery_id, received_at) values ($1, $2, $3, $4, $5)
             on conflict (key) do nothing"
        );
        const KEPT: Sql = sql!("select digest, answer from message_request where key = $1");
        let mut tx = self.begin().await?;
        if let Some(MessageRequest { key, digest, answer }) = request {
            let kept = tx.execute(KEEP, args![key, digest, answer, &id, ms(now)]).await?;
            if kept == 0 {
                let (first, answer): (String, String) = tx.one(KEPT, args![key]).await?;
                return Ok(match first == *digest {
                    true => MessageTaken::Repeated(answer),
                    false => MessageTaken::OtherRequest,
                });
            }
        }
        delivery::create(&mut tx, &mut [Birth::new(id, None, new, now)], now).await?;
        tx.commit().await?;
        Ok(MessageTaken::New)
    }
}
