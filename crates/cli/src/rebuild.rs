//! Commands that rebuild an engine folder.

use tandem::engine::{EngineFolderError, LoadError, Rebuild, comma_separated};
use tandem::model::FamilyError;
use tandem::runtime::{OpenError, VerifyError};

/// Returns the command that fixes an error, if one of its causes is an engine that has to be
/// rebuilt.
pub(super) fn command_for(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(rebuild_of).map(command)
}

/// Returns the message of an engine folder's error, with the command that fixes it, if any.
pub(super) fn with_command(error: &EngineFolderError) -> String {
    match error.rebuild() {
        Some(rebuild) => format!("{error}: `{}`", command(rebuild)),
        None => error.to_string(),
    }
}

fn rebuild_of<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Rebuild> {
    if let Some(error) = cause.downcast_ref::<EngineFolderError>() {
        return error.rebuild();
    }
    if let Some(error) = cause.downcast_ref::<LoadError>() {
        return error.rebuild();
    }
    if let Some(error) = cause.downcast_ref::<FamilyError>() {
        return error.rebuild();
    }
    if let Some(error) = cause.downcast_ref::<VerifyError>() {
        return error.rebuild();
    }
    cause.downcast_ref::<OpenError>().and_then(OpenError::rebuild)
}

fn command(rebuild: &Rebuild) -> String {
    let Rebuild { export, network, backend, targets, precision, out } = rebuild;
    let mut command = format!("tandem build --network {}", network.display());
    if let Some(backend) = backend {
        command += &format!(" --backend {backend}");
    }
    command += &format!(" --target {}", comma_separated(targets));
    if let Some(precision) = precision {
        let value = serde_json::to_value(precision).unwrap_or_default();
        command += &format!(" --precision {}", value.as_str().unwrap_or_default());
    }
    command += &format!(" --out {}", out.display());
    match export {
        None => command,
        Some(export) => format!("{} && {command}", export.summary.export_command(&export.out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use tandem::engine::{BackendKind, Target};
    use tandem::model::automot::NetworksError;
    use tandem_export::options::Precision;

    fn rebuild() -> Option<Box<Rebuild>> {
        Some(Box::new(Rebuild {
            export: None,
            network: "networks".into(),
            backend: Some(BackendKind::OnnxRuntime),
            targets: vec![Target::Cpu],
            precision: Some(Precision::F32),
            out: "engines".into(),
        }))
    }

    /// Checks that the command is found in `error`, with and without a context.
    #[track_caller]
    fn check(error: impl std::error::Error + Send + Sync + 'static) {
        let expected = "tandem build --network networks --backend onnxruntime --target cpu \
                        --precision f32 --out engines";
        let error = anyhow::Error::new(error);
        assert_eq!(command_for(&error).as_deref(), Some(expected));
        let error = Err::<(), _>(error).context("opening a folder").unwrap_err();
        assert_eq!(command_for(&error).as_deref(), Some(expected));
    }

    #[test]
    fn every_error_with_a_rebuild_has_its_command() {
        let folder = || EngineFolderError::WeightsChanged {
            network: "bev".into(),
            path: "weights".into(),
            how: "another length".into(),
            rebuild: rebuild(),
        };
        let load = || LoadError::Rebuild {
            network: "bev".into(),
            differences: vec![],
            rebuild: rebuild(),
        };
        check(folder());
        check(load());
        let source = || FamilyError::from(NetworksError::Load(load()));
        check(FamilyError::from(NetworksError::EngineFolder(folder())));
        check(OpenError::EngineFolder(folder()));
        check(VerifyError::Compare(source()));
        check(OpenError::Networks { folder: "engines".into(), source: source() });
        assert!(with_command(&folder()).ends_with("--out engines`"));
    }
}
