//! Object stores by URL.
//!
//! Guarantees: credentials, region and endpoint come from the environment, under the names that the stores' own tools know. A
//! request ends within about a minute, whatever the store does: whoever made it says what is wrong, and tries again.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

/// What one request may take, with its answer; `AWS_TIMEOUT` and the like say otherwise.
const TIMEOUT: (&str, &str) = ("timeout", "30 seconds");

/// Answers such as 500 and 503 are asked again so often, with pauses between, and for so long.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

/// The store that a URL names, and the path in it. Options that are not for this kind of store are left alone.
pub(super) fn connect(
    url: &Url,
    options: impl IntoIterator<Item = (String, String)>,
) -> object_store::Result<(Arc<dyn ObjectStore>, Path)> {
    macro_rules! store {
        ($builder:ty, $prefix:literal) => {{
            let builder = <$builder>::new().with_url(url.as_str()).with_retry(retry());
            let options = options.into_iter().filter(|(name, _)| name.starts_with($prefix));
            let options = [(TIMEOUT.0.to_owned(), TIMEOUT.1.to_owned())].into_iter().chain(options);
            // A name that means nothing to the store is another program's.
            let known = options.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
            Arc::new(known.fold(builder, |builder, (key, value)| builder.with_config(key, value)).build()?)
        }};
    }
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => store!(AmazonS3Builder, "AWS_"),
        ObjectStoreScheme::GoogleCloudStorage => store!(GoogleCloudStorageBuilder, "GOOGLE_"),
        ObjectStoreScheme::MicrosoftAzure => store!(MicrosoftAzureBuilder, "AZURE_"),
        _ => {
            let source = "expected s3://, gs:// or az://".into();
            return Err(object_store::Error::Generic { store: "URL", source });
        }
    };
    Ok((store, path))
}

/// The variables that are set.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(|(_, value)| !value.is_empty())
}
