//! The command line of `create`.

use std::path::PathBuf;

use clap::Args;

use crate::engine::EngineOptions;

/// Options of `create` and `run`.
#[derive(Debug, Default, Args)]
pub struct CreateOptions {
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// File to read in the place of the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Do not use pivot_root (for a host whose root is a ramfs)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the session keyring of the engine
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}
