//! One server: what it is asked, for how long one waits, and what it means that it does not answer.

use std::fmt::Write;
use std::future::Future;
use std::time::{Duration, Instant};

use clickhouse::error::Error;
use clickhouse::{Client, RowOwned, RowRead, RowWrite};
use serde::Serialize;
use tokio::runtime::Handle;

use super::address::Login;
use super::encrypted;
use super::schema::Dialect;
use crate::store::{Asker, StoreError};

/// How long a query may take; HTTP's askers are told after 30 s.
const QUERY_TIME: Duration = Duration::from_secs(20);
/// How long a block may take until it is stored.
const INSERT_TIME: Duration = Duration::from_secs(30);
/// What fails sooner was never with the server.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How often one looks whether somebody still waits.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of a query: some hundred thousand numbers of series.
const MAX_QUERY_BYTES: &str = "67108864";
/// Bytes of memory that the server takes for a query.
const MAX_QUERY_MEMORY: &str = "4000000000";

/// A server did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// It does not answer: it is down, cut off, or too slow.
    Silent(String),
    /// Who asked has gone.
    NobodyAsks,
    /// It answers that it cannot, or makes no sense.
    Refused(String),
}

impl Failure {
    pub(super) fn refused(why: String) -> Self {
        Self::Refused(why)
    }

    /// The same for somebody else.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Silent(why) => Self::Silent(why.clone()),
            Self::NobodyAsks => Self::NobodyAsks,
            Self::Refused(why) => Self::Refused(why.clone()),
        }
    }

    /// What the store says of it.
    pub(super) fn into_error(self, what: &str) -> StoreError {
        match self {
            Self::NobodyAsks => StoreError::NobodyAsks,
            Self::Silent(why) | Self::Refused(why) => {
                StoreError::Failed { what: what.to_owned(), source: why.into() }
            }
        }
    }
}

/// How servers are spoken to.
#[derive(Clone, Default)]
pub(super) struct Access {
    /// How one logs on; `None`: as the server's default user.
    pub(super) login: Option<Login>,
    /// `None`: nothing is encrypted.
    pub(super) tls: Option<chokepoint_tls::Client>,
}

/// A server.
#[derive(Clone)]
pub(super) struct Server {
    address: String,
    client: Client,
    runtime: Handle,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(address: &str, database: &str, access: &Access, runtime: Handle) -> Self {
        let (client, scheme) = match &access.tls {
            Some(tls) => (encrypted::client(tls), "https"),
            None => (Client::default(), "http"),
        };
        let mut client = client
            .with_url(format!("{scheme}://{address}"))
            .with_database(database)
            // Its own look at the columns needs a newer server than is asked for here.
            .with_validation(false)
            // An error comes as one, and not behind half an answer.
            .with_setting("wait_end_of_query", "1")
            .with_setting("max_query_size", MAX_QUERY_BYTES)
            .with_setting("max_memory_usage", MAX_QUERY_MEMORY);
        if let Some(login) = &access.login {
            client = client.with_user(login.user()).with_password(login.password());
        }
        Self { address: address.to_owned(), client, runtime }
    }

    /// The same server with the settings of what it understands.
    pub(super) fn speaking(&self, dialect: Dialect) -> Self {
        let mut server = self.clone();
        for (name, value) in dialect.settings() {
            server.client = server.client.with_setting(*name, *value);
        }
        server
    }

    /// The same server outside the database, which may not be there yet.
    pub(super) fn outside(&self) -> Self {
        Self { client: self.client.clone().with_database("default"), ..self.clone() }
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Does something without an answer.
    pub(super) fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.wait(None, QUERY_TIME, self.client.query_raw(sql).execute())
    }

    /// The same for what takes longer, with settings of its own.
    pub(super) fn execute_within(
        &self,
        sql: &str,
        within: Duration,
        settings: &[(&str, &str)],
    ) -> Result<(), Failure> {
        let query = self.client.query_raw(sql);
        let query = settings.iter().fold(query, |query, (name, value)| query.with_setting(*name, *value));
        self.wait(None, within, query.execute())
    }

    /// All rows of an answer, which the query bounds.
    pub(super) fn rows<T: RowOwned + RowRead>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        self.again(|| self.wait(None, QUERY_TIME, self.read(sql)))
    }

    /// The same for somebody who may go.
    pub(super) fn rows_for<T: RowOwned + RowRead>(
        &self,
        asker: &Asker,
        sql: &str,
    ) -> Result<Vec<T>, Failure> {
        self.again(|| self.wait(Some(asker), QUERY_TIME, self.read(sql)))
    }

    /// Reads a second time where the first does not get through: a connection that was kept may be one that a restart has ended.
    fn again<T>(&self, read: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
        let begin = Instant::now();
        match read() {
            Err(Failure::Silent(_)) if begin.elapsed() < AT_ONCE => read(),
            answer => answer,
        }
    }

    async fn read<T: RowOwned + RowRead>(&self, sql: &str) -> clickhouse::error::Result<Vec<T>> {
        let query = self.client.query_raw(sql);
        query.with_setting("max_execution_time", QUERY_TIME.as_secs().to_string()).fetch_all().await
    }

    /// Inserts rows as one block of one part, so that all are there or none: they are of one partition, and fewer than a block has room for.
    pub(super) fn insert<T>(&self, table: &str, rows: &[T]) -> Result<(), Failure>
    where
        T: RowOwned + RowWrite + Serialize + Sync,
    {
        if rows.is_empty() {
            return Ok(());
        }
        let insert = async {
            let mut insert = self.client.insert::<T>(table).await?;
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        self.wait(None, INSERT_TIME, insert)
    }

    fn wait<T>(
        &self,
        asker: Option<&Asker>,
        within: Duration,
        answer: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, Failure> {
        let waited = async {
            let mut answer = std::pin::pin!(tokio::time::timeout(within, answer));
            loop {
                tokio::select! {
                    answer = &mut answer => return match answer {
                        Ok(Ok(answer)) => Ok(answer),
                        Ok(Err(error)) => Err(self.failure(error)),
                        Err(_) => Err(Failure::Silent(format!(
                            "{} did not answer within {} s",
                            self.address,
                            within.as_secs()
                        ))),
                    },
                    () = tokio::time::sleep(LOOK_EVERY), if asker.is_some() => {
                        if asker.is_some_and(|asker| asker.check().is_err()) {
                            return Err(Failure::NobodyAsks);
                        }
                    }
                }
            }
        };
        self.runtime.block_on(waited)
    }

    fn failure(&self, error: Error) -> Failure {
        let told = format!("{} answers: {error}", self.address);
        match error {
            Error::Network(_) | Error::TimedOut => {
                Failure::Silent(format!("{} does not answer: {}", self.address, causes(&error)))
            }
            _ => Failure::Refused(told),
        }
    }
}

/// An error with what is behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// A text in a query.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\\' | '\'' => {
                quoted.push('\\');
                quoted.push(character);
            }
            // It would end the text of some servers' parsers.
            '\0' => quoted.push_str("\\0"),
            _ => quoted.push(character),
        }
    }
    quoted.push('\'');
    quoted
}

/// Texts of a list in a query.
pub(super) fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// Numbers of a list in a query.
pub(super) fn list<T: std::fmt::Display>(numbers: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for number in numbers {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{number}");
    }
    text
}

/// An agent in a query.
pub(super) fn agent_literal(agent: &[u8; 16]) -> String {
    let mut text = "unhex('".to_owned();
    for byte in agent {
        let _ = write!(text, "{byte:02x}");
    }
    text + "')"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_texts() {
        assert_eq!(quoted("it's \\ \0"), "'it\\'s \\\\ \\0'");
        assert_eq!(quoted_list(["a", "b'"]), "'a','b\\''");
        assert_eq!(list([1, 2]), "1,2");
        assert_eq!(agent_literal(&[0xab; 16]), format!("unhex('{}')", "ab".repeat(16)));
    }
}
