//! What a route has besides its instances: how it speaks with its clients, and the files that this takes.

use std::sync::Arc;

use bytes::Bytes;
use model::system::Carriage;

use super::tls::{self, Identity, Shown};
use crate::files::Watched;

/// How a route speaks with its clients, with the files for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Furnishing {
    pub(super) carriage: Arc<Carriage>,
    identity: Option<Arc<Identity>>,
    page: Option<Arc<Watched<Bytes>>>,
}

impl Furnishing {
    /// Takes over how the route speaks with clients; files that it has already keep being watched.
    pub(super) fn take_over(&mut self, carriage: &Carriage) {
        if *self.carriage == *carriage {
            return;
        }
        self.identity = carriage.tls.as_ref().map(|files| {
            let paths = [files.certificate.clone(), files.key.clone()];
            let present = self.identity.take().filter(|identity| identity.is_of(&paths));
            present.unwrap_or_else(|| Arc::new(tls::identity(files)))
        });
        self.page = carriage.maintenance.as_ref().map(|path| {
            let present = self.page.take().filter(|page| page.is_of(std::slice::from_ref(path)));
            let bytes = |contents: &[Vec<u8>]| Ok(contents.concat().into());
            present.unwrap_or_else(|| Arc::new(Watched::new(vec![path.clone()], bytes)))
        });
        self.carriage = Arc::new(carriage.clone());
    }

    /// The certificate that clients are shown.
    pub(super) fn shown(&self) -> Option<Arc<Shown>> {
        self.identity.as_ref().and_then(|identity| identity.value())
    }

    /// The page for clients whom no instance can answer.
    pub(super) fn page(&self) -> Option<Arc<Bytes>> {
        self.page.as_ref().and_then(|page| page.value())
    }

    /// What the files lack.
    pub(super) fn troubles(&self) -> Vec<String> {
        let identity = self.identity.as_ref().and_then(|identity| identity.trouble());
        let page = self.page.as_ref().and_then(|page| page.trouble());
        let identity = identity.map(|why| format!("TLS: {why}"));
        identity.into_iter().chain(page.map(|why| format!("maintenance page: {why}"))).collect()
    }

    /// Returns when the files have been read.
    pub(super) async fn looked(&self) {
        if let Some(identity) = &self.identity {
            identity.looked().await;
        }
        if let Some(page) = &self.page {
            page.looked().await;
        }
    }
}
