//! Spines: from a training set's own query, or from a file.
//!
//! Guarantee: a file is read for what all of its rows say, in their order. No type is guessed from the first rows, by
//! which a later row would lose its digits; in CSV, where all is text, the columns that the service asks for and the
//! timestamp stay text until the service's types read them.

use std::path::Path;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions};
use tidemark_engine::batch::Spine;
use tidemark_engine::plan::{FeatureService, Project, TrainingSet, bind, provider};

use crate::{Error, Result};

/// The rows that a training set's query gives.
pub async fn of_set(project: &Project, session: &SessionContext, set: &TrainingSet) -> Result<Spine> {
    let what = format!("the spine of training set {}", set.name);
    let run = Error::run(&what);
    let plan = bind(&set.spine, &|name| provider(&project.tables, name)).map_err(&run)?;
    let frame = session.execute_logical_plan(plan).await.map_err(&run)?;
    let rows = frame.create_physical_plan().await.map_err(&run)?;
    let spine = Spine::new(&set.service, rows, &set.timestamp);
    spine.map_err(|source| Error::Plan { name: set.name.clone(), source })
}

/// The rows of a Parquet, CSV (with a header) or NDJSON file.
pub async fn of_file(
    session: &SessionContext,
    path: &Path,
    service: &FeatureService,
    timestamp: &str,
) -> Result<Spine> {
    if !path.exists() {
        return Err(Error::Spine {
            path: path.into(),
            what: "no such file".into(),
            expected: "a Parquet, CSV or NDJSON file".into(),
        });
    }
    let what = format!("spine {}", path.display());
    let run = Error::run(&what);
    let typed = |name: &str| name == timestamp || service.signature.field_with_name(name).is_ok();
    let frame = open(session, path, &typed).await?.map_err(&run)?;
    let rows = frame.create_physical_plan().await.map_err(&run)?;
    let spine = Spine::new(service, rows, timestamp);
    spine.map_err(|source| Error::SpinePlan { path: path.into(), source })
}

/// Opens a file. `typed` says which columns have a type already, whatever a CSV file looks like.
async fn open(
    session: &SessionContext,
    path: &Path,
    typed: &dyn Fn(&str) -> bool,
) -> Result<datafusion::error::Result<DataFrame>> {
    const ALL: usize = usize::MAX;
    let location = path.to_string_lossy().into_owned();
    let extension = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    let dotted = format!(".{extension}");
    Ok(match extension.to_lowercase().as_str() {
        "parquet" => session.read_parquet(location, ParquetReadOptions::default().file_extension(&dotted)).await,
        "csv" => {
            let options = CsvReadOptions::default().file_extension(&dotted).schema_infer_max_records(ALL);
            match session.read_csv(location.clone(), options.clone()).await {
                Ok(inferred) => {
                    let fields = inferred.schema().fields().iter().map(|f| match typed(f.name()) {
                        true => Field::new(f.name(), DataType::Utf8, true),
                        false => f.as_ref().clone(),
                    });
                    let schema = Schema::new(fields.collect::<Vec<_>>());
                    session.read_csv(location, options.schema(&schema)).await
                }
                failed => failed,
            }
        }
        "ndjson" | "jsonl" | "json" => {
            let options = JsonReadOptions::default().file_extension(&dotted).schema_infer_max_records(ALL);
            session.read_json(location, options).await
        }
        _ => {
            let what = if extension.is_empty() {
                "its name has no extension".to_owned()
            } else {
                format!("unknown extension `.{extension}`")
            };
            return Err(Error::Spine {
                path: path.into(),
                what,
                expected: "a file named *.parquet, *.csv, *.ndjson or *.jsonl".into(),
            });
        }
    })
}
