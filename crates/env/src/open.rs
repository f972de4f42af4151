//! From a URL and options to a [`Store`].

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use tandem_types::{Error, Result};
use url::Url;

use crate::{Chance, Clock, LocalStore, Store};

/// Opens the database at `url`, without touching it: a directory as a plain path or `file://`
/// URL, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, or `memory://`, an
/// empty store of this call alone that ends with the process.
///
/// `options` are object_store's configuration keys (`endpoint`, `region`, `allow_http`, …). They
/// win over the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`). An unknown one is an error.
pub fn open_store(
    url: &str,
    options: &[(String, String)],
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
) -> Result<Store> {
    let Some((scheme, _)) = url.split_once("://") else {
        return open_local(std::path::Path::new(url), options, clock, chance);
    };
    let parsed = parse(url)?;
    match scheme.to_ascii_lowercase().as_str() {
        "file" => {
            let path = parsed.to_file_path().map_err(|()| {
                Error::invalid(format!("store {url:?}: a file URL needs an absolute path, file:///DIRECTORY"))
            })?;
            open_local(&path, options, clock, chance)
        }
        "memory" => {
            no_options("memory", options)?;
            let objects = PrefixStore::new(InMemory::new(), prefix(&parsed)?);
            Ok(Store::in_process(shown(&parsed), Arc::new(objects), clock, chance))
        }
        "s3" | "s3a" => {
            let builder = s3(&parsed, options)?;
            remote(&parsed, clock, chance, |retry| builder.clone().with_retry(retry).build())
        }
        "gs" => {
            let builder = gcs(&parsed, options)?;
            remote(&parsed, clock, chance, |retry| builder.clone().with_retry(retry).build())
        }
        "az" | "azure" | "adl" | "abfs" | "abfss" => {
            let builder = azure(&parsed, options)?;
            remote(&parsed, clock, chance, |retry| builder.clone().with_retry(retry).build())
        }
        other => Err(Error::invalid(format!(
            "store URL scheme {other:?} is not known: use a path, file, s3, gs, az or memory"
        ))),
    }
}

fn open_local(
    path: &std::path::Path,
    options: &[(String, String)],
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
) -> Result<Store> {
    no_options("local directory", options)?;
    let local = LocalStore::open(path, clock.clone(), chance.clone())?;
    Ok(Store::local(local, clock, chance))
}

/// The two handles of a store behind a network, made by `build`.
fn remote<S: ObjectStore>(
    url: &Url,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    build: impl Fn(RetryConfig) -> object_store::Result<S>,
) -> Result<Store> {
    let prefix = prefix(url)?;
    let handle = |retry| -> Result<Arc<dyn ObjectStore>> {
        let store = build(retry).map_err(|error| bad_url(url, &error))?;
        Ok(Arc::new(PrefixStore::new(store, prefix.clone())))
    };
    let log = handle(RetryConfig { max_retries: 0, ..RetryConfig::default() })?;
    let data = handle(RetryConfig::default())?;
    Ok(Store::remote(shown(url), log, data, clock, chance))
}

fn s3(url: &Url, options: &[(String, String)]) -> Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::from_env().with_url(bare(url));
    for (key, value) in options {
        builder = builder.with_config(config_key::<AmazonS3ConfigKey>("s3", key)?, value);
    }
    let get = |key| builder.get_config_value(&key);
    let endpoint = get(AmazonS3ConfigKey::S3Endpoint).or_else(|| get(AmazonS3ConfigKey::Endpoint));
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let allow_http = get(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    if plain && allow_http.as_deref() != Some("true") {
        return Err(Error::invalid(format!(
            "store {}: its endpoint is plain http, which needs the option allow_http=true",
            shown(url)
        )));
    }
    Ok(builder)
}

fn gcs(url: &Url, options: &[(String, String)]) -> Result<GoogleCloudStorageBuilder> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_url(bare(url));
    for (key, value) in options {
        builder = builder.with_config(config_key::<GoogleConfigKey>("gs", key)?, value);
    }
    Ok(builder)
}

fn azure(url: &Url, options: &[(String, String)]) -> Result<MicrosoftAzureBuilder> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(bare(url));
    for (key, value) in options {
        builder = builder.with_config(config_key::<AzureConfigKey>("az", key)?, value);
    }
    Ok(builder)
}

fn config_key<K: std::str::FromStr>(scheme: &str, key: &str) -> Result<K> {
    let unknown = |_| Error::invalid(format!("unknown option {key:?} for a store of scheme {scheme}"));
    key.to_ascii_lowercase().parse().map_err(unknown)
}

fn no_options(what: &str, options: &[(String, String)]) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some((key, _)) => Err(Error::invalid(format!("unknown option {key:?}: a {what} store has none"))),
    }
}

fn parse(url: &str) -> Result<Url> {
    // The URL itself stays out of the messages until it is known to hold no password.
    let parsed = Url::parse(url).map_err(|error| Error::invalid(format!("store URL: {error}")))?;
    if parsed.password().is_some() {
        return Err(Error::invalid("store URL: give credentials by environment or option, not in the URL"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(Error::invalid("store URL: no ? or # is allowed; settings are given as options"));
    }
    let remote = !matches!(parsed.scheme(), "file" | "memory");
    if remote && parsed.host_str().is_none_or(str::is_empty) {
        return Err(Error::invalid(format!("store URL {}: the bucket is missing", shown(&parsed))));
    }
    Ok(parsed)
}

fn prefix(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path()).map_err(|error| bad_url(url, &error))
}

/// The URL without its prefix, for the library's builders: they need the bucket only.
fn bare(url: &Url) -> String {
    let mut bare = url.clone();
    bare.set_path("");
    bare.into()
}

fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

fn bad_url(url: &Url, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("store {}: {error}", shown(url)))
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;
    use crate::{SystemChance, SystemClock};

    fn open(url: &str, options: &[(&str, &str)]) -> Result<Store> {
        let options: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        open_store(url, &options, Arc::new(SystemClock), Arc::new(SystemChance))
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: [Case; 10] = [
            ("ftp://host/x", &[], "\"ftp\""),
            ("s3://bucket/p", &[("colour", "red")], "\"colour\""),
            ("gs://bucket/p", &[("colour", "red")], "\"colour\""),
            ("az://container/p", &[("colour", "red")], "\"colour\""),
            ("data", &[("colour", "red")], "\"colour\""),
            ("memory://", &[("colour", "red")], "\"colour\""),
            ("s3://key:word@bucket/p", &[], "credentials"),
            ("s3://bucket/p?versionId=1", &[], "option"),
            ("file://relative/x", &[], "absolute"),
            ("s3://bucket/p", &[("endpoint", "http://127.0.0.1:1")], "allow_http"),
        ];
        for (url, options, names) in cases {
            let error = open(url, options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}: {error}");
            assert!(error.message().contains(names), "{url}: {error}");
            assert!(!error.message().contains("word"), "{error}");
        }
    }

    #[test]
    fn a_store_shows_where_it_is_and_no_secret() {
        let s3 = [
            ("ENDPOINT", "http://127.0.0.1:1"),
            ("allow_http", "true"),
            ("region", "here"),
            ("secret_access_key", "hidden"),
            ("access_key_id", "k"),
        ];
        let store = open("s3://bucket/a/b/", &s3).unwrap();
        assert_eq!(store.url(), "s3://bucket/a/b");
        assert!(!format!("{store:?}").contains("hidden"));
        assert!(!store.is_local());

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not-yet");
        let store = open(path.to_str().unwrap(), &[]).unwrap();
        assert!(store.is_local());
        assert!(!path.exists(), "opening touches nothing");
        assert_eq!(store.url(), path.to_str().unwrap());
    }

    #[tokio::test]
    async fn a_file_url_and_a_path_are_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b");
        let by_path = open(path.to_str().unwrap(), &[]).unwrap();
        let by_url = open(Url::from_file_path(&path).unwrap().as_str(), &[]).unwrap();
        assert_eq!(by_path.create("x/y", vec!["z".into()]).await, crate::CreateOutcome::Created);
        assert_eq!(by_url.get("x/y").await.unwrap().unwrap(), "z");
    }
}
