//! A web of archives that others keep.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use executor::ports::{ArchiveError, Archives};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::gate::Gate;

/// What is there, by URL.
pub struct Web {
    pub gate: Arc<Gate>,
    pub pages: Mutex<BTreeMap<String, Page>>,
    /// What was asked for.
    pub asked: Mutex<Vec<String>>,
}

#[derive(Clone)]
pub enum Page {
    Whole(Vec<u8>),
    /// Nothing comes after this.
    BrokenOff(Vec<u8>),
    /// It answers with an error.
    Error(&'static str),
    RedirectsOn,
    /// This comes, and then nothing any more.
    Stalled(Vec<u8>),
}

impl Web {
    pub fn new(gate: Arc<Gate>) -> Self {
        Self { gate, pages: Mutex::default(), asked: Mutex::default() }
    }

    /// Returns how often anybody was asked for anything.
    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl Archives for Web {
    async fn open(&self, url: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, ArchiveError> {
        self.asked.lock().unwrap().push(url.to_owned());
        let page = self.pages.lock().unwrap().get(url).cloned();
        let shown = "http://shown".to_owned();
        self.gate
            .pass(&["web:open".to_owned()], async {
                let content: Box<dyn AsyncRead + Send + Unpin> = match page {
                    None => return Err(ArchiveError::NotFound { url: shown }),
                    Some(Page::RedirectsOn) => return Err(ArchiveError::TooManyRedirects { url: shown }),
                    Some(Page::Error(text)) => {
                        return Err(ArchiveError::Failed { url: shown, source: text.into() });
                    }
                    Some(Page::Whole(content)) => Box::new(io::Cursor::new(content)),
                    Some(Page::BrokenOff(content)) => {
                        let end = tokio_util::io::StreamReader::new(futures::stream::iter([Err::<
                            io::Cursor<Vec<u8>>,
                            _,
                        >(
                            io::Error::new(io::ErrorKind::UnexpectedEof, "the line went dead"),
                        )]));
                        Box::new(io::Cursor::new(content).chain(end))
                    }
                    Some(Page::Stalled(content)) => {
                        let end = tokio_util::io::StreamReader::new(futures::stream::pending::<
                            io::Result<io::Cursor<Vec<u8>>>,
                        >());
                        Box::new(io::Cursor::new(content).chain(end))
                    }
                };
                Ok(content)
            })
            .await
    }
}
