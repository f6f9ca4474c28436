//! One way to speak to both databases: SQLite in the data directory, Postgres where more than one machine shares the state.
//!
//! A statement is SQL text that both understand (`$1` placeholders, `ON CONFLICT`, 64-bit integers) with values of three types,
//! so that whatever is built on this module is written once and the two can't drift apart. The price is that a column's type is
//! told when it is read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, migrate};
use thiserror::Error;

/// Longest wait for a connection: a database that is away is reported instead of waited for.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest that Postgres may work on one statement, or wait for a lock.
const STATEMENT_DEADLINE_MS: &str = "10000";
/// Longest wait for an answer: a server that the network has lost does not even say that it gave up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 20 });
const CONNECTIONS: u32 = 4;

/// Where the state is.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    /// A file of this process alone.
    File(PathBuf),
    /// A Postgres URL.
    Url(String),
}

/// A connected database.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A value to or from the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Bytes(Vec<u8>),
    Text(String),
}

/// The type of a column that is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Int,
    Bytes,
    Text,
}

/// SQL with the values of its placeholders.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    sql: &'static str,
    values: Vec<Value>,
}

/// A row, column by column.
pub(crate) struct Row(std::vec::IntoIter<Value>);

/// The same code for either database.
macro_rules! on_either {
    ($database:expr, $pool:ident => $body:expr) => {
        match $database {
            Database::Sqlite($pool) => $body,
            Database::Postgres($pool) => $body,
        }
    };
}

/// A statement as the database library takes it.
macro_rules! query {
    ($statement:expr) => {{
        let mut query = sqlx::query($statement.sql);
        for value in &$statement.values {
            query = match value {
                Value::Int(value) => query.bind(*value),
                Value::Bytes(value) => query.bind(value.as_slice()),
                Value::Text(value) => query.bind(value.as_str()),
            };
        }
        query
    }};
}

impl Statement {
    pub(crate) fn new(sql: &'static str) -> Self {
        Self { sql, values: Vec::new() }
    }

    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }
}

impl Database {
    /// Connects, and brings the tables up to date.
    pub(crate) async fn open(location: &Location) -> Result<Self, StoreError> {
        match location {
            Location::File(path) => Self::open_file(path).await,
            Location::Url(url) => Self::open_url(url).await,
        }
    }

    async fn open_file(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        migrate!("migrations/sqlite").run(&pool).await?;
        Ok(Self::Sqlite(pool))
    }

    async fn open_url(url: &str) -> Result<Self, StoreError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(StoreError::Url);
        }
        let options: PgConnectOptions = url.parse()?;
        let options = options
            .application_name("shardproof-coordinator")
            .options([("statement_timeout", STATEMENT_DEADLINE_MS), ("lock_timeout", STATEMENT_DEADLINE_MS)]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_DEADLINE);
        let pool = pool.connect_with(options).await?;
        migrate!("migrations/postgres").run(&pool).await?;
        Ok(Self::Postgres(pool))
    }

    /// Whether no other process can reach it.
    pub(crate) fn is_private(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// The rows that a query gives.
    pub(crate) async fn fetch(&self, statement: &Statement, columns: &[Kind]) -> Result<Vec<Row>, StoreError> {
        on_either!(self, pool => answered(async {
            let mut rows = Vec::new();
            for row in query!(statement).fetch_all(pool).await? {
                let values = columns.iter().enumerate().map(|(index, kind)| match kind {
                    Kind::Int => row.try_get(index).map(Value::Int),
                    Kind::Bytes => row.try_get(index).map(Value::Bytes),
                    Kind::Text => row.try_get(index).map(Value::Text),
                });
                rows.push(Row(values.collect::<Result<Vec<_>, _>>()?.into_iter()));
            }
            Ok(rows)
        }).await)
    }

    /// Carries out one statement; returns how many rows it changed.
    pub(crate) async fn execute(&self, statement: &Statement) -> Result<u64, StoreError> {
        on_either!(self, pool => answered(async {
            Ok(query!(statement).execute(pool).await?.rows_affected())
        }).await)
    }

    /// Carries out all statements or none. `fence` comes first and has to change one row.
    pub(crate) async fn transact(
        &self,
        fence: &Statement,
        statements: impl Iterator<Item = &Statement>,
    ) -> Result<(), StoreError> {
        on_either!(self, pool => answered(async {
            let mut transaction = pool.begin().await?;
            if query!(fence).execute(&mut *transaction).await?.rows_affected() != 1 {
                return Err(StoreError::Fenced);
            }
            for statement in statements {
                query!(statement).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(())
        }).await)
    }

    /// Whether it has been closed.
    pub(crate) fn is_closed(&self) -> bool {
        on_either!(self, pool => pool.is_closed())
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        on_either!(self, pool => pool.close().await);
    }
}

/// What the database gives, or that it did not answer in time; whether it did the work is then not known.
async fn answered<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(ANSWER_DEADLINE, work).await.unwrap_or_else(|_| {
        let late = format!("no answer within {} s", ANSWER_DEADLINE.as_secs());
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, late)).into())
    })
}

impl Row {
    pub(crate) fn int(&mut self) -> Result<i64, StoreError> {
        match self.0.next() {
            Some(Value::Int(value)) => Ok(value),
            _ => Err(StoreError::Column),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::Bytes(value)) => Ok(value),
            _ => Err(StoreError::Column),
        }
    }

    /// Bytes of a fixed number, such as those of an id.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| StoreError::Column)
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        match self.0.next() {
            Some(Value::Text(value)) => Ok(value),
            _ => Err(StoreError::Column),
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// Why the state could not be read or written. One failure may concern many writers, so it can be told to each.
#[derive(Clone, Debug, Error)]
pub(crate) enum StoreError {
    #[error("database: {0}")]
    Sql(Arc<sqlx::Error>),
    #[error("database migration: {0}")]
    Migration(Arc<sqlx::migrate::MigrateError>),
    #[error("the database holds what cannot be read: {0}")]
    Record(Arc<serde_json::Error>),
    #[error("the database holds a value of another type or length than was written")]
    Column,
    #[error("the database holds a worker's record that cannot be read: {what}")]
    Worker { what: String },
    #[error("--database takes a URL such as postgres://user:password@host:5432/name")]
    Url,
    #[error("another coordinator has taken over: this one's lease is no longer valid")]
    Fenced,
    #[error(
        "the database belongs to a service with another owner key: copy owner.key from the data directory of the coordinator \
         that made it, or give each service a database of its own"
    )]
    OtherOwner,
    #[error("the coordinator is stopping")]
    Stopping,
}

impl StoreError {
    /// Whether one of several writes may be at fault rather than the way to the database.
    pub(crate) fn is_about_a_statement(&self) -> bool {
        matches!(self, Self::Sql(error) if matches!(**error, sqlx::Error::Database(_) | sqlx::Error::Encode(_)))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(Arc::new(error))
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(Arc::new(error))
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Record(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::copy_bidirectional;
    use tokio::net::{UnixListener, UnixStream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::store::testing::TestDatabase;

    /// The name that Postgres gives its socket.
    const SOCKET: &str = ".s.PGSQL.5432";

    /// Passes connections in `near` on to the server in `far` until it is cut off; then what they say goes nowhere.
    fn network(near: &Path, far: PathBuf, cut: CancellationToken) {
        let listener = UnixListener::bind(near.join(SOCKET)).unwrap();
        tokio::spawn(async move {
            loop {
                let mut client = listener.accept().await.unwrap().0;
                let mut server = UnixStream::connect(far.join(SOCKET)).await.unwrap();
                let cut = cut.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => std::future::pending().await,
                        ended = copy_bidirectional(&mut client, &mut server) => ended.map(drop),
                    }
                });
            }
        });
    }

    #[tokio::test]
    async fn a_server_that_the_network_lost_is_reported() {
        let database = TestDatabase::server();
        let Location::Url(url) = database.location() else { unreachable!("a server has a URL") };
        let (url, far) = url.split_once("?host=").unwrap();
        let (near, cut) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        network(near.path(), far.into(), cut.clone());
        let away = Database::open(&Location::Url(format!("{url}?host={}", near.path().display()))).await.unwrap();

        // It is asked, and the network goes before it answers.
        let slow = Statement::new("SELECT 1::BIGINT FROM pg_sleep(1)");
        let (answer, ()) = tokio::join!(away.fetch(&slow, &[Kind::Int]), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cut.cancel();
        });
        let Err(error) = answer else { panic!("the answer cannot have come") };
        assert!(!error.is_about_a_statement() && error.to_string().contains("no answer within"), "{error}");
    }
}
