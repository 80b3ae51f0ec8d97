//! The one error type of the crate. Every variant of [`Code`] has a stable slug that Python maps to an exception.

use std::fmt;

/// Stable machine name of an error; the catalogue with exit codes is in `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A value, name or option that is not allowed.
    Invalid,
    /// A profile table or mapping file that contradicts itself.
    Profile,
    /// A `--where` expression that does not compile or does not answer yes or no.
    Where,
    /// The store is not there.
    StoreMissing,
    /// What is there is not the store that was named.
    StoreFormat,
    /// A format written by a newer memferry.
    FormatNewer,
    /// The store is locked by someone else.
    StoreLocked,
    /// The store is damaged.
    StoreCorrupt,
    /// No space is left where the target or the ledger lives.
    DiskFull,
    /// Another run took the migration over; a late writer stops.
    Fenced,
    /// The store could not be reached or did not answer in time.
    Unavailable,
    /// The store asked to be called later.
    Throttled,
    /// The store refused the credentials.
    Unauthorized,
    /// The store refused what it was asked.
    Refused,
    /// Anything the operating system answered that has no name of its own here.
    Io,
}

impl Code {
    /// All codes, so that a test can walk the catalogue.
    pub const ALL: [Self; 15] = [
        Self::Invalid,
        Self::Profile,
        Self::Where,
        Self::StoreMissing,
        Self::StoreFormat,
        Self::FormatNewer,
        Self::StoreLocked,
        Self::StoreCorrupt,
        Self::DiskFull,
        Self::Fenced,
        Self::Unavailable,
        Self::Throttled,
        Self::Unauthorized,
        Self::Refused,
        Self::Io,
    ];

    /// The stable slug.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Profile => "profile",
            Self::Where => "where",
            Self::StoreMissing => "store-missing",
            Self::StoreFormat => "store-format",
            Self::FormatNewer => "format-newer",
            Self::StoreLocked => "store-locked",
            Self::StoreCorrupt => "store-corrupt",
            Self::DiskFull => "disk-full",
            Self::Fenced => "fenced",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::Io => "io",
        }
    }

    /// Whether trying the same page again can help.
    pub const fn transient(self) -> bool {
        matches!(self, Self::StoreLocked | Self::Unavailable | Self::Throttled)
    }
}

/// An error with its code, its text and, where the store named one, the time to wait.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    /// What kind of error it is.
    pub code: Code,
    /// What, where, what was got, what is allowed. Never a secret, never memory content beyond an id.
    pub message: String,
    /// Seconds the store asked us to wait.
    pub retry_after_secs: Option<f64>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `code` that says `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_secs: None }
    }

    /// Shorthand for [`Code::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// Puts where it happened in front of the text.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Puts the file it happened in front of the text, unless that names it already.
    #[must_use]
    pub fn in_file(self, path: &std::path::Path) -> Self {
        let place = path.display().to_string();
        if self.message.contains(&place) { self } else { self.at(place) }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let code = match e.kind() {
            std::io::ErrorKind::NotFound => Code::StoreMissing,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::DiskFull,
            _ => Code::Io,
        };
        Self::new(code, e.to_string())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as S;
        let code = match e.sqlite_error_code() {
            Some(S::DatabaseBusy | S::DatabaseLocked) => Code::StoreLocked,
            Some(S::DatabaseCorrupt) => Code::StoreCorrupt,
            Some(S::NotADatabase) => Code::StoreFormat,
            Some(S::DiskFull) => Code::DiskFull,
            Some(S::CannotOpen) => Code::StoreMissing,
            _ => Code::Io,
        };
        Self::new(code, e.to_string())
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(e: arrow_schema::ArrowError) -> Self {
        Self::new(Code::Io, e.to_string())
    }
}
