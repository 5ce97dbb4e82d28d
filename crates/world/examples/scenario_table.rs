//! Prints the table of scenario types that `docs/scenarios.md` holds.

#![expect(clippy::print_stdout, reason = "the table is this program's output")]

fn main() {
    print!("{}", tandem_world::scenario_table());
}
