//! Where things are: flags over environment over `tidemark.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::Deserialize;
use tidemark_engine::plan::Project;
use tidemark_engine::platform::Folder;

use crate::services;

const FILE: &str = "tidemark.toml";
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// Options that every verb takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Folder of definitions; the folder that holds it is the project [default: features]
    #[arg(long, global = true, value_name = "DIR", env = "TIDEMARK_FEATURES")]
    features: Option<PathBuf>,
    /// Folder of the platform's data [default: the project's data]
    #[arg(long, global = true, value_name = "DIR", env = "TIDEMARK_DATA")]
    data: Option<PathBuf>,
    /// Where archive, dead letters and snapshots are: a folder, or a URL such as s3://bucket/path, with credentials in the
    /// environment (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT, …) [default: offline in the data folder]
    #[arg(long, global = true, value_name = "LOCATION", env = "TIDEMARK_OFFLINE")]
    offline: Option<String>,
    /// The project's name: keys in Redis and consumer groups begin with it [default: the project folder's]
    #[arg(long = "project", global = true, value_name = "NAME", env = "TIDEMARK_PROJECT")]
    name: Option<String>,
    /// Print JSON for a program
    #[arg(long, global = true)]
    json: bool,
}

/// `tidemark.toml`, in the folder where `tidemark` runs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    features: Option<PathBuf>,
    data: Option<PathBuf>,
    offline: Option<String>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    kafka: BTreeMap<String, String>,
    #[serde(default)]
    schema_registry: services::Url,
    #[serde(default)]
    redis: services::Url,
}

#[derive(Debug)]
pub struct Settings {
    /// The project's name, which keys in Redis and consumer groups begin with.
    pub name: String,
    pub features: PathBuf,
    /// The project folder: relative paths in definitions start here.
    pub root: PathBuf,
    pub data: PathBuf,
    /// Unless it is in the data folder.
    offline: Option<String>,
    pub json: bool,
    /// From `tidemark.toml`.
    listen: Option<SocketAddr>,
    pub services: services::File,
}

impl Settings {
    pub fn new(global: &Global) -> Result<Self> {
        let file = read(Path::new(FILE))?;
        let features = global.features.clone().or(file.features).unwrap_or_else(|| "features".into());
        let data = global.data.clone().or(file.data);
        let at = Self::at(&features, data.as_deref())?;
        let offline = global.offline.clone().or(file.offline).filter(|location| !location.is_empty());
        let offline = offline.map(|location| absolute_location(&location)).transpose()?;
        let services = services::File { kafka: file.kafka, schema_registry: file.schema_registry, redis: file.redis };
        let name = global.name.clone().or(file.name).unwrap_or_else(|| at.name.clone());
        Ok(Self { name, offline, listen: file.listen, json: global.json, services, ..at })
    }

    /// The settings for another project.
    pub fn at(features: &Path, data: Option<&Path>) -> Result<Self> {
        let features = absolute(features)?;
        let root = features.parent().map_or_else(|| features.clone(), Path::to_owned);
        let data = data.map_or_else(|| Ok(root.join("data")), absolute)?;
        let name = root.file_name().map_or_else(|| "tidemark".to_owned(), |name| name.to_string_lossy().into_owned());
        let services = services::File::default();
        Ok(Self { name, features, root, data, offline: None, json: false, listen: None, services })
    }

    /// The address that the platform listens on, unless a flag says otherwise.
    pub fn listen(&self, flag: Option<SocketAddr>) -> SocketAddr {
        flag.or(self.listen).unwrap_or(LISTEN)
    }

    /// Reads and compiles the definitions.
    pub async fn project(&self) -> Result<Arc<Project>> {
        Ok(Arc::new(Project::load(&self.root, &self.features).await?))
    }

    /// The project of the settings, for who reads events: the files of sources' histories are looked up.
    pub async fn open_project(&self) -> Result<Arc<Project>> {
        Ok(Arc::new(Project::open(&self.root, &self.features).await?))
    }

    pub fn folder(&self) -> Folder {
        let folder = Folder::new(&self.data);
        match &self.offline {
            Some(location) => folder.with_offline(location),
            None => folder,
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("folder {}", path.display()))
}

/// A URL as it is, a folder from the root on.
fn absolute_location(location: &str) -> Result<String> {
    match location.contains("://") {
        true => Ok(location.to_owned()),
        false => Ok(absolute(Path::new(location))?.to_string_lossy().into_owned()),
    }
}

fn read(path: &Path) -> Result<File> {
    match std::fs::read_to_string(path) {
        // Without the line itself, which may hold a password.
        Ok(text) => toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let (line, column) = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default());
            anyhow!(
                "{}: line {line}, column {}: {}; expected the keys name, features, data, offline, listen, [kafka], \
                 [schema_registry], [redis]",
                path.display(),
                column.chars().count() + 1,
                error.message()
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_the_folder_around_the_definitions() {
        let settings = Settings::at(Path::new("shop/features"), None).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(settings.root, here.join("shop"));
        assert_eq!(settings.data, here.join("shop/data"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "listen = '127.0.0.1:9000'\nfeatrues = 'x'\n").unwrap();
        let message = crate::console::message(&read(&path).unwrap_err());
        assert!(message.contains("featrues") && message.contains("line 2"), "{message}");
        std::fs::write(&path, "listen = '127.0.0.1:9000'\n").unwrap();
        assert_eq!(read(&path).unwrap().listen.unwrap().port(), 9000);
    }
}
