//! One collection: an engine shard, its configuration, and the order in which things may happen.
//!
//! Locks are taken in this order: `maintenance`, `write`, `shard`. The engine panics when a flush
//! meets an update or the optimizer's swap of segments; `write` and `maintenance` keep them apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use qdrant_client::qdrant as pb;
use qdrant_edge::{CountRequest, EdgeShard, ShardInfo, UpdateOperation};

use super::maintenance::{Health, Pace};
use super::schema::Schema;
use super::{recovery, settings, wal};
use crate::error::{Error, Result};

/// Log files above this size make the flusher reopen the shard with an empty log.
const LOG_LIMIT_BYTES: u64 = 512 * 1024 * 1024;

pub struct Collection {
    name: String,
    dir: PathBuf,
    schema: Schema,
    config: RwLock<pb::CollectionConfig>,
    /// Empty only while the shard is reopened, or after the collection was closed.
    shard: RwLock<Option<EdgeShard>>,
    write: Mutex<WriteState>,
    maintenance: Mutex<()>,
    pub(super) pace: Pace,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct WriteState {
    /// Number that the engine's log gives the next operation.
    next: u64,
    /// Operations below this number are in the segments, on disk.
    flushed: u64,
    /// An operation failed so that nobody knows whether it was logged: nothing is marked as
    /// flushed from then on, so that the next start replays from a number that is surely right.
    uncertain: bool,
}

impl Collection {
    pub(super) fn create(dir: &Path, name: &str, config: pb::CollectionConfig) -> Result<Arc<Self>> {
        let shard_dir = dir.join(recovery::SHARD);
        fs::create_dir_all(&shard_dir)?;
        let shard = EdgeShard::new(&shard_dir, settings::engine_config(&config)?)?;
        write_atomically(&dir.join("name"), name.as_bytes())?;
        // Written last: a directory without it is a creation that never finished.
        write_atomically(&dir.join("config.pb"), &config.encode_to_vec())?;
        Self::start(dir, name, config, shard, 0)
    }

    /// Opens a collection directory; `None` when its creation never finished.
    pub(super) fn open(dir: &Path) -> Result<Option<Arc<Self>>> {
        if !dir.join("config.pb").exists() {
            return Ok(None);
        }
        let name = fs::read_to_string(dir.join("name"))?;
        let config = pb::CollectionConfig::decode(fs::read(dir.join("config.pb"))?.as_slice())
            .map_err(|error| Error::Service(format!("configuration of `{name}`: {error}")))?;
        let (shard, next) = recovery::open_shard(dir)?;
        Self::start(dir, &name, config, shard, next).map(Some)
    }

    fn start(dir: &Path, name: &str, config: pb::CollectionConfig, shard: EdgeShard, next: u64) -> Result<Arc<Self>> {
        let schema = Schema::new(&settings::engine_config(&config)?);
        let collection = Arc::new(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            schema,
            config: RwLock::new(config),
            shard: RwLock::new(Some(shard)),
            write: Mutex::new(WriteState { next, flushed: next, uncertain: false }),
            maintenance: Mutex::new(()),
            pace: Pace::default(),
            thread: Mutex::new(None),
        });
        let thread = super::maintenance::spawn(Arc::clone(&collection))?;
        *collection.thread.lock() = Some(thread);
        Ok(collection)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn config(&self) -> pb::CollectionConfig {
        self.config.read().clone()
    }

    /// Runs a read on the shard.
    pub fn read<T>(&self, read: impl FnOnce(&EdgeShard) -> Result<T>) -> Result<T> {
        match &*self.shard.read() {
            Some(shard) => read(shard),
            None => Err(Error::no_collection(&self.name)),
        }
    }

    /// Checks, logs and applies one operation; returns its number.
    pub fn update(&self, operation: UpdateOperation) -> Result<u64> {
        self.schema.check(&operation)?;
        let mut write = self.write.lock();
        let result = self.read(|shard| Ok(shard.update(operation)))?;
        let number = write.next;
        write.next += 1;
        note_uncertain(&mut write, &result);
        drop(write);
        self.pace.changed();
        result.map(|()| number).map_err(Error::from)
    }

    /// Number of points, exactly, and what the engine says of itself.
    pub fn info(&self) -> Result<(usize, ShardInfo)> {
        self.read(|shard| {
            let exact = shard.count(CountRequest { filter: None, exact: true })?;
            Ok((exact, shard.info()))
        })
    }

    pub fn health(&self) -> Health {
        if settings::optimizers_disabled(&self.config.read()) {
            return Health::Green;
        }
        self.pace.health()
    }

    /// Changes the configuration, on disk first, then in the engine.
    pub fn reconfigure(&self, request: pb::UpdateCollection) -> Result<()> {
        let mut config = self.config.write();
        let mut changed = config.clone();
        settings::apply_update(&mut changed, request)?;
        let engine = settings::engine_config(&changed)?;
        write_atomically(&self.dir.join("config.pb"), &changed.encode_to_vec())?;
        self.read(|shard| {
            shard.set_hnsw_config(engine.hnsw_config)?;
            shard.set_optimizers_config(engine.optimizers)?;
            for (name, params) in &engine.vectors {
                if let Some(hnsw) = params.hnsw_config {
                    shard.set_vector_hnsw_config(name, hnsw)?;
                }
            }
            Ok(())
        })?;
        *config = changed;
        drop(config);
        self.pace.changed();
        Ok(())
    }

    pub(super) fn flush_secs(&self) -> u64 {
        let config = self.config.read();
        let optimizers = config.optimizer_config.unwrap_or_default();
        optimizers.flush_interval_sec.unwrap_or(settings::DEFAULT_FLUSH_SECS).max(1)
    }

    /// Lets the engine merge, vacuum and index until it finds nothing more to do.
    pub(super) fn optimize(&self) -> Result<()> {
        if settings::optimizers_disabled(&self.config.read()) {
            return Ok(());
        }
        let _maintenance = self.maintenance.lock();
        self.read(|shard| Ok(shard.optimize()?)).map(|_| ())
    }

    /// Brings everything to disk and remembers that it is there.
    pub fn flush(&self) -> Result<()> {
        let _maintenance = self.maintenance.lock();
        let mut write = self.write.lock();
        self.flush_locked(&mut write)?;
        let log = self.dir.join(recovery::SHARD).join(recovery::LOG);
        if !write.uncertain && wal::closed_bytes(&log) > LOG_LIMIT_BYTES {
            let mut shard = self.shard.write();
            if shard.take().is_some() {
                let (reopened, next) = recovery::open_shard(&self.dir)?;
                *shard = Some(reopened);
                write.next = next;
            }
        }
        Ok(())
    }

    fn flush_locked(&self, write: &mut WriteState) -> Result<()> {
        if write.flushed == write.next || write.uncertain {
            return Ok(());
        }
        self.read(|shard| {
            shard.flush();
            Ok(())
        })?;
        recovery::save_flushed(&self.dir, write.next)?;
        write.flushed = write.next;
        Ok(())
    }

    /// Ends the background thread and lets go of the files; flushes unless they are deleted next.
    /// A running optimization is waited for.
    pub(super) fn close(&self, flush: bool) -> Result<()> {
        self.pace.stop();
        if let Some(thread) = self.thread.lock().take() {
            thread.join().map_err(|_| Error::Service(format!("maintenance of `{}` failed", self.name)))?;
        }
        let result = if flush { self.flush() } else { Ok(()) };
        let _maintenance = self.maintenance.lock();
        let _write = self.write.lock();
        self.shard.write().take();
        result
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A refused input was logged like any other operation; an internal error may not have been.
fn note_uncertain(write: &mut WriteState, result: &std::result::Result<(), qdrant_edge::OperationError>) {
    if let Err(error) = result
        && matches!(Error::from(error.clone()), Error::Service(_))
    {
        write.uncertain = true;
    }
}

/// Replaces a file so that a reader sees the old content or the new, never a part.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(())
}
