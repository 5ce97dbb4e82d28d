//! The `tandem` command.

fn main() {
    tandem::cli::run()
}
