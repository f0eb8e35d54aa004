//! What packages need of each other.

use std::collections::BTreeMap;

use model::{ErrorCode, PackageName, ReleaseName};
use serde_json::{Value, json};

use super::{ArchiveError, PackageRow};

/// Packages by name, for lookups along dependencies.
type ByName<'a> = BTreeMap<&'a str, &'a PackageRow>;

/// Levels of dependencies. Real releases have five; readers of the key recurse, so this bounds their stack.
const DEPTH_MAX: usize = 100;

/// Bytes of a dependency key. Shared dependencies are written out again and again, so a few lines of manifest could ask
/// for a text that fills every disk.
const KEY_BYTES_MAX: usize = 1 << 20;

/// Refuses packages that need unknown ones or, over any number of steps, themselves.
pub fn check(release: &ReleaseName, packages: &[PackageRow]) -> Result<(), ArchiveError> {
    let refuse = |why: String| Err(ArchiveError::new(ErrorCode::ReleaseInvalidPackage, why));
    let by_name = by_name(packages);
    for package in packages {
        if let Some(missing) = package.dependencies.iter().find(|d| !by_name.contains_key(d.as_str())) {
            return refuse(format!(
                "Package '{}' of release '{release}' depends on unknown package '{missing}'",
                package.name
            ));
        }
    }
    let mut walk = Walk { by_name: &by_name, seen: BTreeMap::new() };
    for package in packages {
        match walk.from(package) {
            Ok(key) if key.depth <= DEPTH_MAX && key.bytes <= KEY_BYTES_MAX => {}
            Ok(_) => {
                let name = &package.name;
                return refuse(format!(
                    "Package '{name}' of release '{release}' has too many dependencies to follow"
                ));
            }
            Err(circle) => {
                return refuse(format!(
                    "Packages of release '{release}' depend on each other in a circle: {circle}"
                ));
            }
        }
    }
    Ok(())
}

/// Returns BOSH's text over the fingerprints of all dependencies of a package (`[["ruby","fp1",[["libyaml","fp2"]]]]`).
/// It is compared byte by byte between uploads, so its form is contract. The packages must have passed [`check`].
pub fn dependency_key(packages: &[PackageRow], package: &PackageName) -> String {
    let by_name = by_name(packages);
    by_name.get(package.as_str()).map_or(json!([]), |p| key_of(&by_name, &p.dependencies)).to_string()
}

fn by_name(packages: &[PackageRow]) -> ByName<'_> {
    packages.iter().map(|p| (p.name.as_str(), p)).collect()
}

fn key_of(by_name: &ByName<'_>, dependencies: &[PackageName]) -> Value {
    let mut direct: Vec<&PackageRow> =
        dependencies.iter().filter_map(|d| by_name.get(d.as_str()).copied()).collect();
    direct.sort_by(|a, b| a.name.cmp(&b.name));
    let entry = |p: &PackageRow| match key_of(by_name, &p.dependencies) {
        Value::Array(nested) if !nested.is_empty() => json!([p.name, p.fingerprint, nested]),
        _ => json!([p.name, p.fingerprint]),
    };
    direct.into_iter().map(entry).collect()
}

/// What a package's dependency key would be like, were it written out.
#[derive(Clone, Copy)]
struct KeySize {
    depth: usize,
    bytes: usize,
}

/// A walk along dependencies that looks at each package once.
struct Walk<'a> {
    by_name: &'a ByName<'a>,
    /// None while a package is on the path: meeting it again closes a circle.
    seen: BTreeMap<&'a str, Option<KeySize>>,
}

impl<'a> Walk<'a> {
    /// Returns the size of a package's key, or a circle as text. The path may be as long as there are packages, so the
    /// walk keeps its own stack.
    fn from(&mut self, start: &'a PackageRow) -> Result<KeySize, String> {
        if let Some(Some(key)) = self.seen.get(start.name.as_str()) {
            return Ok(*key);
        }
        let mut path = vec![(start, 0)];
        self.seen.insert(start.name.as_str(), None);
        while let Some((package, next)) = path.last_mut() {
            let package = *package;
            let Some(dependency) = package.dependencies.get(*next) else {
                let key = self.key_size(package);
                self.seen.insert(package.name.as_str(), Some(key));
                path.pop();
                continue;
            };
            *next += 1;
            match self.seen.get(dependency.as_str()) {
                Some(Some(_)) => {}
                Some(None) => {
                    let names = path.iter().map(|(p, _)| p.name.as_str());
                    let circle: Vec<_> = names.skip_while(|n| *n != dependency.as_str()).collect();
                    return Err(format!("{} -> {dependency}", circle.join(" -> ")));
                }
                None => {
                    let row = *self.by_name.get(dependency.as_str()).expect("unknown ones were refused");
                    self.seen.insert(row.name.as_str(), None);
                    path.push((row, 0));
                }
            }
        }
        Ok(self.key_size(start))
    }

    fn key_size(&self, package: &PackageRow) -> KeySize {
        let known = package.dependencies.iter().filter_map(|d| {
            let row = self.by_name.get(d.as_str())?;
            Some((*self.seen.get(d.as_str())?.as_ref()?, row))
        });
        known.fold(KeySize { depth: 0, bytes: 2 }, |sum, (key, row)| {
            let own = row.name.as_str().len() + row.fingerprint.as_str().len() + 10;
            KeySize {
                depth: sum.depth.max(key.depth + 1),
                bytes: sum.bytes.saturating_add(key.bytes).saturating_add(own),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(text: &str) -> Vec<PackageRow> {
        let row = |line: &str| {
            let (name, dependencies) = line.split_once(':').unwrap();
            PackageRow {
                name: name.into(),
                fingerprint: format!("fp{name}").into(),
                digest: String::new(),
                dependencies: dependencies.split_whitespace().map(PackageName::from).collect(),
                stemcell: None,
            }
        };
        text.split(';').map(row).collect()
    }

    #[track_caller]
    fn check_key(text: &str, package: &str, key: &str) {
        assert_eq!(dependency_key(&packages(text), &package.into()), key);
    }

    #[test]
    fn the_key_nests_only_what_is_there() {
        check_key("p:b a;a:c;b:;c:", "p", r#"[["a","fpa",[["c","fpc"]]],["b","fpb"]]"#);
        check_key("p:b a;a:c;b:;c:", "b", "[]");
    }

    #[test]
    fn circles_and_unknown_packages_are_named() {
        let message = |text| check(&"r".into(), &packages(text)).unwrap_err().message;
        assert!(message("a:b;b:c;c:b").ends_with("in a circle: b -> c -> b"));
        assert!(message("a:a").ends_with("a -> a"));
        assert_eq!(message("a:b"), "Package 'a' of release 'r' depends on unknown package 'b'");
        assert!(check(&"r".into(), &packages("a:b c;b:d;c:d;d:")).is_ok());
    }

    #[test]
    fn a_long_chain_is_refused_without_a_deep_stack() {
        let text: Vec<String> =
            (0..50_000).map(|i| format!("p{i}:p{}", i + 1)).chain(["p50000:".into()]).collect();
        let error = check(&"r".into(), &packages(&text.join(";"))).unwrap_err();
        assert!(error.message.ends_with("too many dependencies to follow"), "{}", error.message);
    }

    #[test]
    fn dependencies_that_double_on_each_level_are_refused() {
        let level = |i: usize| format!("a{i}:a{0} b{0};b{i}:a{0} b{0}", i + 1);
        let text: Vec<String> = (0..40).map(level).chain(["a40:;b40:".into()]).collect();
        let error = check(&"r".into(), &packages(&text.join(";"))).unwrap_err();
        assert!(error.message.ends_with("too many dependencies to follow"), "{}", error.message);
    }
}
