//! Links what unwinds the stack into the programs, where the compiler has it as a static library.
//!
//! As a shared library, libgcc_s is one more file to find, map and relocate at each start, and it asks the processor for
//! its features, which on a virtual machine is a trap to the host each time: 0.13 of the 1.6 ms that the command took to
//! start and end. Where this does not apply, the shared library is linked as ever.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is_native = variable("HOST") == variable("TARGET");
    if !is_native || variable("CARGO_CFG_TARGET_OS") != "linux" || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    // It prints where the file is, or the name alone if there is none.
    let Ok(answer) = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output() else { return };
    let answer = String::from_utf8_lossy(&answer.stdout);
    let file = Path::new(answer.trim());
    if let (true, Some(directory)) = (file.is_file(), file.parent()) {
        println!("cargo::rustc-link-search=native={}", directory.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
