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

All actors except vehicles of flows and opening car doors are spawned before the drive, and become
dangerous only through the type's trigger.
Collisions are not simulated: a vehicle that hits something stops. Obstacles are always on the right
of their lane. Types at junctions and merges use places from the route file where it gives some.

*As above* refers to the row above. *5 s after 50 m* means 5 s after the ego vehicle has come within
50 m. *Slowed* traffic has a lower speed limit.

*Constants* lists the values that the code uses, by source. Names are those of the benchmark's
`scenario_runner` (CARLA 0.9.16; Bench2Drive's copy for the files that it adds; in
`srunner/scenarios` if no other folder is named). Units are meters, seconds and m/s, and km/h for
speeds of 50 and more; distances of sources and sinks at turns are in seconds of travel of the flow.
*PDM-Lite* is the public rule-based expert, *tandem* marks values that this repository chose.
`/` separates the values of one name.
";

/// Returns the table in Markdown, as in `docs/scenarios.md`.
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
    // The constants of this crate come last.
    sources.sort_by_key(|source| *source == Source::Tandem);
    let sources: Vec<String> =
        sources.into_iter().map(|source| of_source(source, constants)).collect();
    let sources = sources.join("; ");
    writeln!(text, "| {name} | {modeled} | {not_modeled} | {sources} |")
        .expect("writing to a string cannot fail");
}

fn of_source(source: Source, constants: &[Constants]) -> String {
    let quote = if source == Source::Tandem { "" } else { "`" };
    let own = constants.iter().filter(|constants| constants.source == source);
    let values = own.flat_map(|constants| constants.values).map(|(name, values)| {
        let values: Vec<String> = values.iter().map(f64::to_string).collect();
        format!("{quote}{name}{quote} {}", values.join("/"))
    });
    let values = values.collect::<Vec<_>>().join(", ");
    match source {
        Source::ScenarioRunner(file) => format!("`{file}`: {values}"),
        Source::PdmLite => format!("PDM-Lite: {values}"),
        Source::Tandem => format!("tandem: {values}"),
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
    fn every_type_has_a_description_and_sources() {
        for registered in types() {
            assert!(!registered.modeled.is_empty(), "{}", registered.name);
            for Constants { values, .. } in registered.constants {
                assert!(!values.is_empty(), "{}", registered.name);
                assert!(values.iter().all(|(_, values)| !values.is_empty()), "{}", registered.name);
            }
        }
    }
}
