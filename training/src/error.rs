//! What can go wrong with a training set.

use std::path::PathBuf;

use datafusion::error::DataFusionError;
use tidemark_engine::batch::TrainingError;
use tidemark_engine::offline::gone;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no {kind} `{name}`; expected {expected}{}", hint.as_ref().map(|h| format!("; hint: {h}")).unwrap_or_default())]
    Unknown { kind: &'static str, name: String, expected: String, hint: Option<String> },
    #[error("spine {}: {what}; expected {expected}", path.display())]
    Spine { path: PathBuf, what: String, expected: String },
    #[error("spine {}: {source}", path.display())]
    SpinePlan { path: PathBuf, source: TrainingError },
    #[error("training set {name}: {source}")]
    Plan { name: String, source: TrainingError },
    #[error("events of source {source_name}: {source}")]
    Events { source_name: String, source: DataFusionError },
    #[error(transparent)]
    Offline(#[from] tidemark_engine::offline::OfflineError),
    #[error("{what}: {cause}")]
    Run { what: String, cause: String },
    #[error("can't {action} {}: {cause}", path.display())]
    File { action: &'static str, path: PathBuf, cause: String },
}

impl Error {
    /// A query that failed, without DataFusion's own words about the kind of error.
    pub(crate) fn run(what: &str) -> impl Fn(DataFusionError) -> Self + use<> {
        let what = what.to_owned();
        move |error| {
            let hint = match gone(&error) {
                true => {
                    "; hint: `tidemark compact` removed it while this ran: run it again, and compact with a longer --grace"
                }
                false => "",
            };
            Self::Run { what: what.clone(), cause: format!("{}{hint}", error.message()) }
        }
    }
}
