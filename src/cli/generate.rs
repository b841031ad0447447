//! What is made from the definitions of the command line itself.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::output::Output;

/// Prints the help, as Barman does when it is called without a command.
pub(super) fn help(command: &mut Command) {
    print(command.render_help().to_string().as_bytes());
}

/// `completion SHELL`
pub(super) fn completion(shell: Shell, mut command: Command) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "walarch", &mut script);
    print(&script);
}

/// `man [COMMAND]`
pub(super) fn man(name: Option<&str>, command: Command, output: &Output) {
    let page = match name {
        None => Some(command),
        Some(name) => command.find_subcommand(name).cloned().map(|found| {
            // Leaked once, in a process that prints a page and ends: clap wants static names.
            let title: &'static str = format!("walarch-{}", found.get_name()).leak();
            found.name(title)
        }),
    };
    let Some(page) = page else {
        return output.error(&format!(
            "there is no command '{}'",
            name.unwrap_or_default()
        ));
    };
    let mut roff = Vec::new();
    match Man::new(page).render(&mut roff) {
        Ok(()) => print(&roff),
        Err(error) => output.error(&format!("cannot render the manual page: {error}")),
    }
}

/// A reader that has seen enough is no error.
fn print(text: &[u8]) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text).and_then(|()| stdout.flush());
}
