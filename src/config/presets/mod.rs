//! What sources of a known kind of helpdesk are configured like, unless the admin says otherwise: settings and nothing else.

/// The settings below `sources.<name>` for a kind of helpdesk, as TOML.
const PRESETS: [(&str, &str); 10] = [
    ("zammad", include_str!("zammad.toml")),
    ("zendesk", include_str!("zendesk.toml")),
    ("freshdesk", include_str!("freshdesk.toml")),
    ("jira", include_str!("jira.toml")),
    ("freescout", include_str!("freescout.toml")),
    ("glpi", include_str!("glpi.toml")),
    ("rt", include_str!("rt.toml")),
    ("osticket", include_str!("osticket.toml")),
    ("redmine", include_str!("redmine.toml")),
    ("django-helpdesk", include_str!("django-helpdesk.toml")),
];

/// The preset with this name.
pub fn find(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names of all of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}
