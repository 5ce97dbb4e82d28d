//! The table of scenario types in the documentation.

use super::registry::types;
use super::scenario_type::{Constants, ScenarioType, Source};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Scenario types

Generated from the files of `crates/world/src/scenarios`, each of which registers its types:

```text
cargo run -p tandem-world --example scenario_table > docs/scenarios.md
```

Actors are spawned before the drive and become dangerous only through the type's trigger. Collisions
are not simulated: a vehicle that hits something stops. Obstacles are always at the right of their
lane. Types at junctions and merges take places from the route file where it gives some.

*Constants* lists the values that the code uses, by source. Names are those of the benchmark's
`scenario_runner` (CARLA's 0.9.16; Bench2Drive's copy for the files that it adds; in
`srunner/scenarios` if no other folder is named). Units are meters, seconds and m/s, km/h for speeds
of 50 and more; where a flow begins and ends at a turn is in seconds at its speed. *PDM-Lite* is the
public rule-based expert. `/` separates the values of one name.
";

/// The table as Markdown, as `docs/scenarios.md` has it.
pub fn scenario_table() -> String {
    let mut text = String::from(INTRODUCTION);
    text.push_str("\n| type | modeled | not modeled | constants |\n|---|---|---|---|\n");
    for registered in types() {
        row(&mut text, registered);
    }
    text
}

fn row(text: &mut String, registered: &ScenarioType) {
    let ScenarioType { name, modeled, not_modeled, constants, .. } = registered;
    let mut sources: Vec<Source> = Vec::new();
    for Constants { source, .. } in *constants {
        if !sources.contains(source) {
            sources.push(*source);
        }
    }
    // What the code does differently comes last.
    sources.sort_by_key(|source| *source == Source::Ours);
    let sources: Vec<String> =
        sources.into_iter().map(|source| of_source(source, constants)).collect();
    let sources = sources.join("; ");
    writeln!(text, "| {name} | {modeled} | {not_modeled} | {sources} |")
        .expect("a string takes any text");
}

fn of_source(source: Source, constants: &[Constants]) -> String {
    let quote = if source == Source::Ours { "" } else { "`" };
    let own = constants.iter().filter(|constants| constants.source == source);
    let values = own.flat_map(|constants| constants.values).map(|(name, values)| {
        let values: Vec<String> = values.iter().map(f64::to_string).collect();
        format!("{quote}{name}{quote} {}", values.join("/"))
    });
    let values = values.collect::<Vec<_>>().join(", ");
    match source {
        Source::ScenarioRunner(file) => format!("`{file}`: {values}"),
        Source::PdmLite => format!("PDM-Lite: {values}"),
        Source::Ours => format!("ours: {values}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn committed_table_equals_the_code() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scenarios.md");
        let committed = std::fs::read_to_string(file).unwrap();
        assert!(
            committed == scenario_table(),
            "docs/scenarios.md is out of date; its second paragraph has the command that writes it"
        );
    }

    #[test]
    fn every_type_says_what_is_modeled_and_has_sources_for_its_constants() {
        for registered in types() {
            assert!(!registered.modeled.is_empty(), "{}", registered.name);
            for Constants { values, .. } in registered.constants {
                assert!(!values.is_empty(), "{}", registered.name);
                assert!(values.iter().all(|(_, values)| !values.is_empty()), "{}", registered.name);
            }
        }
    }
}
