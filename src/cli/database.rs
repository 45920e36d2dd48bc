//! `migrate`, `backup` and `export`. Absent: `import`, which has more than one kind.

use super::common::with_good_configuration;
use crate::app::{self, Loaded};
use clap::Subcommand;
use std::{path::PathBuf, process::ExitCode};

#[derive(Subcommand)]
pub enum Command {
    /// Bring the tables of the database up to date; `serve` does so too
    Migrate {
        /// Only say what is to be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Copy the SQLite database to a new file, also while the service runs
    Backup { file: PathBuf },
    /// Write everything to a file that `import` reads; the service must not run
    Export { file: PathBuf },
}

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    with_good_configuration(loaded, async move |loaded| match command {
        Command::Migrate { dry_run } => app::migrate(&loaded.config, dry_run).await,
        Command::Backup { file } => app::backup(&loaded.config, &file).await,
        Command::Export { file } => app::export(&loaded.config, &file).await,
    })
}
