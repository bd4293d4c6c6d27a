//! The `nodejobs` command.

fn main() -> std::process::ExitCode {
    nodejobs_cli::client()
}
