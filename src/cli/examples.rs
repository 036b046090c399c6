//! The examples in the help of each command.

/// Two examples for each command: its name on a line of its own, the examples indented, an empty
/// line.
const EXAMPLES: &str = include_str!("examples.txt");

/// Returns the text of the help about examples of the command with that name.
pub(super) fn examples(name: &str) -> String {
    let blocks = EXAMPLES.split("\n\n");
    let of_command = |block: &'static str| block.strip_prefix(name)?.strip_prefix('\n');
    let examples = blocks.filter_map(of_command).next().unwrap_or_default();
    format!("Examples:\n{}", examples.trim_end())
}
