//! The storage directory: collections and aliases.
//!
//! ```text
//! DIR/lock                  held while a server runs on the directory
//! DIR/aliases.json
//! DIR/collections/UUID/     name, config.pb, flushed.json, shard/, replay/
//! ```

mod collection;
mod maintenance;
mod quantization;
mod recovery;
mod schema;
mod settings;
mod wal;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use qdrant_client::qdrant as pb;
use uuid::Uuid;

pub use collection::Collection;
pub use maintenance::Health;

use crate::error::{Error, Result};

const FORBIDDEN_IN_NAMES: [char; 11] = ['<', '>', ':', '"', '/', '\\', '|', '?', '*', '\0', '\u{1F}'];

pub struct Storage {
    root: PathBuf,
    /// Held for its lock.
    _lock: fs::File,
    /// Serialises creation, deletion and alias changes.
    definition: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    collections: BTreeMap<String, Arc<Collection>>,
    aliases: BTreeMap<String, String>,
}

impl Storage {
    /// Opens a storage directory, replaying what a killed server left in its logs.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root.join("collections"))?;
        let lock = fs::File::create(root.join("lock"))?;
        lock.try_lock().map_err(|error| Error::Service(format!("storage is in use: {error}")))?;
        let mut state = State::default();
        for entry in fs::read_dir(root.join("collections"))? {
            let dir = entry?.path();
            match Collection::open(&dir)? {
                Some(collection) => {
                    let name = collection.name().to_owned();
                    state.collections.insert(name, collection);
                }
                None => fs::remove_dir_all(&dir)?,
            }
        }
        let aliases = root.join("aliases.json");
        if aliases.exists() {
            state.aliases = serde_json::from_slice(&fs::read(aliases)?)
                .map_err(|error| Error::Service(format!("aliases.json: {error}")))?;
        }
        Ok(Self { root: root.to_owned(), _lock: lock, definition: Mutex::new(()), state: RwLock::new(state) })
    }

    /// Finds a collection by its name or by an alias.
    pub fn get(&self, name: &str) -> Result<Arc<Collection>> {
        let state = self.state.read();
        let name = state.aliases.get(name).map_or(name, String::as_str);
        state.collections.get(name).cloned().ok_or_else(|| Error::no_collection(name))
    }

    pub fn names(&self) -> Vec<String> {
        self.state.read().collections.keys().cloned().collect()
    }

    pub fn create(&self, request: pb::CreateCollection) -> Result<()> {
        let name = request.collection_name.clone();
        check_name(&name)?;
        let _definition = self.definition.lock();
        {
            let state = self.state.read();
            if state.collections.contains_key(&name) {
                return Err(already_exists(&name));
            }
            if state.aliases.contains_key(&name) {
                return Err(Error::bad_input(format!(
                    "Can't create collection with name {name}. \
                     Alias with the same name already exists"
                )));
            }
        }
        let config = settings::from_create(request)?;
        let dir = self.root.join("collections").join(Uuid::new_v4().to_string());
        let collection = Collection::create(&dir, &name, config)?;
        self.state.write().collections.insert(name, collection);
        Ok(())
    }

    /// Deletes a collection and its aliases; false when there is none, as the real server says.
    pub fn delete(&self, name: &str) -> Result<bool> {
        let _definition = self.definition.lock();
        let collection = {
            let mut state = self.state.write();
            let name = state.aliases.get(name).cloned().unwrap_or(name.to_owned());
            let Some(collection) = state.collections.remove(&name) else {
                return Ok(false);
            };
            state.aliases.retain(|_, target| *target != name);
            self.save_aliases(&state.aliases)?;
            collection
        };
        // Without this file the next start takes the directory for rubbish, so nothing is lost
        // when the process ends before the rest is done. The rest waits for the optimizer.
        fs::remove_file(collection.dir().join("config.pb"))?;
        std::thread::spawn(move || {
            let removed = collection.close(false).and_then(|()| Ok(fs::remove_dir_all(collection.dir())?));
            if let Err(error) = removed {
                eprintln!("deleted collection `{}`: {error}", collection.name());
            }
        });
        Ok(true)
    }

    /// All aliases, or those of one collection: `(alias, collection)`.
    pub fn aliases(&self, collection: Option<&str>) -> Vec<(String, String)> {
        let state = self.state.read();
        state
            .aliases
            .iter()
            .filter(|(_, target)| collection.is_none_or(|name| name == target.as_str()))
            .map(|(alias, target)| (alias.clone(), target.clone()))
            .collect()
    }

    /// Applies the actions in order. Unlike the real server, all of them or none.
    pub fn change_aliases(&self, actions: Vec<pb::AliasOperations>) -> Result<()> {
        use pb::alias_operations::Action;
        let _definition = self.definition.lock();
        let mut state = self.state.write();
        let mut aliases = state.aliases.clone();
        for action in actions {
            match action.action {
                Some(Action::CreateAlias(create)) => {
                    check_name(&create.alias_name)?;
                    if !state.collections.contains_key(&create.collection_name) {
                        return Err(Error::no_collection(&create.collection_name));
                    }
                    if state.collections.contains_key(&create.alias_name) {
                        return Err(already_exists(&create.alias_name));
                    }
                    aliases.insert(create.alias_name, create.collection_name);
                }
                Some(Action::RenameAlias(rename)) => {
                    let Some(target) = aliases.remove(&rename.old_alias_name) else {
                        return Err(Error::NotFound(format!("Alias {} does not exists!", rename.old_alias_name)));
                    };
                    check_name(&rename.new_alias_name)?;
                    aliases.insert(rename.new_alias_name, target);
                }
                Some(Action::DeleteAlias(delete)) => {
                    aliases.remove(&delete.alias_name);
                }
                None => return Err(Error::malformed("Malformed AliasOperation type")),
            }
        }
        self.save_aliases(&aliases)?;
        state.aliases = aliases;
        Ok(())
    }

    fn save_aliases(&self, aliases: &BTreeMap<String, String>) -> Result<()> {
        let json = serde_json::to_vec_pretty(aliases).unwrap_or_default();
        collection::write_atomically(&self.root.join("aliases.json"), &json)
    }

    pub fn all(&self) -> Vec<Arc<Collection>> {
        self.state.read().collections.values().cloned().collect()
    }

    /// Flushes and closes everything; used once, at the end.
    pub fn close(&self) -> Result<()> {
        let _definition = self.definition.lock();
        let collections = std::mem::take(&mut self.state.write().collections);
        let mut result = Ok(());
        for collection in collections.values() {
            result = result.and(collection.close(true));
        }
        result
    }
}

fn already_exists(name: &str) -> Error {
    Error::AlreadyExists(format!("Collection `{name}` already exists!"))
}

fn check_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    if !(1..=255).contains(&length) {
        return Err(Error::malformed(format!(
            "Validation error in body: [collection_name: \
             value length {length} invalid, must be from 1 to 255 characters]"
        )));
    }
    match name.chars().find(|char| FORBIDDEN_IN_NAMES.contains(char)) {
        Some(char) => Err(Error::malformed(format!(
            "Validation error in body: [collection_name: \
             collection name cannot contain \"{char}\" char]"
        ))),
        None => Ok(()),
    }
}
