//! The keeper as a program of its own, beside `nodejobs`.

fn main() -> std::process::ExitCode {
    nodejobs::keeper_main()
}
