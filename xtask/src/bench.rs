//! Placeholder.
#[derive(clap::Args, Default)]
pub(crate) struct Options {}
pub(crate) fn run(_: &crate::workspace::Workspace, _: &Options) -> anyhow::Result<()> {
    Ok(())
}
