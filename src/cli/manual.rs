//! `completions` and `man`, both made from the commands' own descriptions.

use super::common::print;
use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
pub struct Completions {
    /// For this shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Args)]
pub struct Man {
    /// A folder for the pages of all commands [default: the first page, to standard output]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub fn complete(mut program: Command, Completions { shell }: &Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut program, "nightbell", &mut script);
    print(script)?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(program: Command, Man { folder }: &Man) -> anyhow::Result<ExitCode> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(program).render(&mut page)?;
        print(page)?;
        return Ok(ExitCode::SUCCESS);
    };
    clap_mangen::generate_to(program, folder)
        .with_context(|| format!("cannot write to {}: name a folder that is there", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
