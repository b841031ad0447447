//! Which bucket a URL in `wals_directory` names, with the rules that Barman applies to it.

/// The Google console's form of a bucket URL, which Barman accepts besides `gs://`.
const GOOGLE_CONSOLE: &str = "https://console.cloud.google.com/storage/browser/";

/// Whose object store it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// Amazon S3 and everything that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage, with the account and where it answers.
    Azure { account: String, endpoint: String },
}

/// A bucket (for Azure: a container) and the beginning of every key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) provider: Provider,
    pub(super) bucket: String,
    /// Without slashes around it; may be empty.
    pub(super) prefix: String,
    /// How a person names an object: this, a slash and the key.
    pub(super) url: String,
}

impl Address {
    /// Reads a URL. An error says what is wrong with it.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme")?;
        if rest.contains(['?', '#']) {
            return Err("it has a query or a fragment");
        }
        let google = url
            .strip_prefix(GOOGLE_CONSOLE)
            .or_else(|| url.strip_prefix("gs://"));
        let rest = google.unwrap_or(rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = if google.is_some() {
            let url = format!("gs://{host}");
            Self::new(Provider::Google, host, path.trim_matches('/'), url)
        } else if scheme.eq_ignore_ascii_case("s3") {
            let url = format!("s3://{host}");
            Self::new(Provider::S3, host, path.trim_start_matches('/'), url)
        } else {
            let (container, path) = path.split_once('/').unwrap_or((path, ""));
            let account = host.split('.').next().unwrap_or_default().to_owned();
            let endpoint = format!("{scheme}://{host}");
            let url = format!("{endpoint}/{container}");
            Self::new(Provider::Azure { account, endpoint }, container, path, url)
        };
        if address.bucket.is_empty() {
            return Err("it names no bucket");
        }
        let is_odd = |part| matches!(part, "" | "." | "..");
        if !address.prefix.is_empty() && address.prefix.split('/').any(is_odd) {
            return Err("its path has a part that is empty, or one or two dots");
        }
        Ok(address)
    }

    fn new(provider: Provider, bucket: &str, path: &str, url: String) -> Self {
        Address {
            provider,
            bucket: bucket.to_owned(),
            prefix: path.strip_suffix('/').unwrap_or(path).to_owned(),
            url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (Provider, String, String) {
        let address = Address::parse(url).unwrap();
        (address.provider, address.bucket, address.prefix)
    }

    #[test]
    fn a_url_is_split_as_barman_splits_it() {
        let all =
            |provider, bucket: &str, prefix: &str| (provider, bucket.to_owned(), prefix.to_owned());
        assert_eq!(parsed("s3://bucket"), all(Provider::S3, "bucket", ""));
        assert_eq!(parsed("s3://bucket/"), all(Provider::S3, "bucket", ""));
        assert_eq!(
            parsed("s3://bucket/a/b c/"),
            all(Provider::S3, "bucket", "a/b c")
        );
        assert_eq!(
            parsed("gs://bucket/a"),
            all(Provider::Google, "bucket", "a")
        );
        let console = format!("{GOOGLE_CONSOLE}bucket/a/b");
        assert_eq!(parsed(&console), all(Provider::Google, "bucket", "a/b"));
        let azure = Provider::Azure {
            account: "account".to_owned(),
            endpoint: "https://account.blob.core.windows.net".to_owned(),
        };
        assert_eq!(
            parsed("https://account.blob.core.windows.net/container/a/b"),
            all(azure.clone(), "container", "a/b")
        );
        assert_eq!(
            parsed("https://account.blob.core.windows.net/container"),
            all(azure, "container", "")
        );
    }

    #[test]
    fn what_names_no_bucket_or_an_impossible_path_is_refused() {
        for url in [
            "bucket",
            "s3://",
            "s3:///path",
            "s3://bucket/path//x",
            "s3://bucket/path//",
            "s3://bucket/a/../b",
            "s3://bucket/a?versionId=1",
            "https://account.blob.core.windows.net/",
            "https://account.blob.core.windows.net/container//a",
        ] {
            assert!(Address::parse(url).is_err(), "{url} was accepted");
        }
    }
}
