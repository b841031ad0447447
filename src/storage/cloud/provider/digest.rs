//! A digest of each stored body for the providers whose client sends none: Azure and Google verify
//! `Content-MD5`.

use std::sync::Arc;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use object_store::azure::{AzureAuthorizer, AzureCredential};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService, ReqwestConnector,
};

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Travels with a request as an extension: the MD5 of its body, in base 64.
#[derive(Clone, Debug)]
pub(in super::super) struct BodyDigest(pub(in super::super) HeaderValue);

/// A key that signs requests, header by header: what is added later must be signed again.
#[derive(Clone, Debug)]
pub(super) struct SharedKey {
    pub(super) account: String,
    pub(super) credential: Arc<AzureCredential>,
}

/// Makes clients that send [`BodyDigest`] as a header.
#[derive(Debug, Default)]
pub(super) struct DigestConnector {
    pub(super) shared_key: Option<SharedKey>,
}

impl HttpConnector for DigestConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(DigestService {
            inner: ReqwestConnector::default().connect(options)?,
            shared_key: self.shared_key.clone(),
        }))
    }
}

#[derive(Debug)]
struct DigestService {
    inner: HttpClient,
    shared_key: Option<SharedKey>,
}

#[async_trait::async_trait]
impl HttpService for DigestService {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(BodyDigest(digest)) = request.extensions().get().cloned() {
            request.headers_mut().insert(CONTENT_MD5, digest);
            if let Some(SharedKey {
                account,
                credential,
            }) = &self.shared_key
            {
                request.headers_mut().remove(AUTHORIZATION);
                AzureAuthorizer::new(credential, account)
                    .try_authorize(&mut request)
                    .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
            }
        }
        self.inner.execute(request).await
    }
}
