//! A Dockerfile's stages, and a run of one of them without an engine: `COPY` from a context that `.dockerignore` made,
//! `RUN` in bubblewrap, with this machine's toolchain in place of the builder's image.

use super::{checkout, read, succeeds};
use parse_dockerfile::{Command as Words, Dockerfile, HealthcheckArguments, Instruction, Source};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One stage: where it begins and what it says.
pub struct Stage {
    /// The image or the stage in its `FROM`, with the builder's variables filled in.
    pub base: String,
    steps: Vec<Step>,
}

enum Step {
    Variables(Vec<(String, String)>),
    Folder(String),
    Copy {
        from_stage: Option<String>,
        from: Vec<String>,
        to: String,
    },
    Run {
        mounts: Vec<String>,
        line: String,
    },
    Setting(&'static str, Vec<String>),
    Remark,
}

/// The stages of `deploy/Dockerfile` by name, for an architecture; the last one is called `image`.
pub fn stages(architecture: &str) -> BTreeMap<String, Stage> {
    let text = read("deploy/Dockerfile");
    let file: Dockerfile<'_> = parse_dockerfile::parse(&text).unwrap();
    let stages = file.stages().map(|stage| {
        let name = stage.from.as_.as_ref().map_or("image", |(_, name)| &*name.value);
        let base = stage.from.image.value.replace("$TARGETARCH", architecture);
        let steps = stage.instructions.iter().map(step).collect();
        (name.to_owned(), Stage { base, steps })
    });
    stages.collect()
}

fn step(instruction: &Instruction<'_>) -> Step {
    let owned = |text: &parse_dockerfile::UnescapedString<'_>| text.value.to_string();
    match instruction {
        Instruction::Env(env) => Step::Variables(variables(&env.arguments.value)),
        Instruction::Workdir(workdir) => Step::Folder(owned(&workdir.arguments)),
        Instruction::Copy(copy) => {
            let option = |name: &str| {
                let found = copy.options.iter().find(|option| option.name.value == name)?;
                Some(owned(found.value.as_ref()?))
            };
            let from = copy.src.iter().map(|source| match source {
                Source::Path(path) => owned(path),
                other => panic!("{other:?} is not understood here"),
            });
            Step::Copy {
                from_stage: option("from"),
                from: from.collect(),
                to: owned(&copy.dest),
            }
        }
        Instruction::Run(run) => {
            let mounts = run
                .options
                .iter()
                .map(|option| owned(option.value.as_ref().unwrap()));
            Step::Run {
                mounts: mounts.collect(),
                line: match &run.arguments {
                    Words::Shell(line) => line.value.to_string(),
                    other => panic!("{other:?} is not understood here"),
                },
            }
        }
        Instruction::User(user) => Step::Setting("USER", vec![owned(&user.arguments)]),
        Instruction::Entrypoint(entrypoint) => Step::Setting("ENTRYPOINT", words(&entrypoint.arguments)),
        Instruction::Cmd(cmd) => Step::Setting("CMD", words(&cmd.arguments)),
        Instruction::Healthcheck(healthcheck) => match &healthcheck.arguments {
            HealthcheckArguments::Cmd { arguments, .. } => Step::Setting("HEALTHCHECK", words(arguments)),
            other => panic!("{other:?} is not understood here"),
        },
        Instruction::Arg(_) | Instruction::Label(_) | Instruction::Expose(_) => Step::Remark,
        other => panic!("{other:?} is not understood here"),
    }
}

/// The words of a command in exec form. The shell form needs a shell, which the image has not.
fn words(command: &Words<'_>) -> Vec<String> {
    match command {
        Words::Exec(words) => words.value.iter().map(|word| word.value.to_string()).collect(),
        other => panic!("{other:?} needs a shell, and there is none in the image"),
    }
}

/// `A=b C="d e"`.
fn variables(text: &str) -> Vec<(String, String)> {
    let mut rest = text.trim();
    let mut found = Vec::new();
    while let Some((name, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => value.split_once(' ').unwrap_or((value, "")),
        };
        found.push((name.trim().to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
    found
}

impl Stage {
    /// What an instruction such as `USER` or `ENTRYPOINT` says.
    pub fn setting(&self, name: &str) -> &[String] {
        let mut found = self.steps.iter().filter_map(|step| match step {
            Step::Setting(setting, words) if *setting == name => Some(words),
            _ => None,
        });
        let words = found.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(found.next().is_none(), "a second {name}");
        words
    }

    /// What it sets for its steps.
    pub fn variables(&self) -> impl Iterator<Item = &(String, String)> {
        self.steps.iter().flat_map(|step| match step {
            Step::Variables(variables) => variables.as_slice(),
            _ => &[],
        })
    }

    /// What it copies from another stage: stage, from and to.
    pub fn copies(&self) -> Vec<(&str, Vec<&str>, &str)> {
        let copies = self.steps.iter().filter_map(|step| match step {
            Step::Copy { from_stage, from, to } => {
                let from = from.iter().map(String::as_str).collect();
                Some((from_stage.as_deref().unwrap_or("the context"), from, to.as_str()))
            }
            _ => None,
        });
        copies.collect()
    }

    /// Runs its steps with these variables, in a root where `/out` and the folders that caches are mounted at are
    /// folders of `scratch`, and its working directory, too.
    pub fn run(&self, variables: &BTreeMap<String, String>, caches: &Path, scratch: &Path) {
        let context = context(scratch);
        let (mut variables, mut folder) = (variables.clone(), String::from("/"));
        for step in &self.steps {
            match step {
                Step::Variables(more) => variables.extend(more.iter().cloned()),
                Step::Folder(path) => {
                    folder.clone_from(path);
                    fs::create_dir_all(scratch.join(path.trim_start_matches('/'))).unwrap();
                }
                Step::Copy {
                    from_stage: None,
                    from,
                    to,
                } => {
                    let to = scratch.join(folder.trim_start_matches('/')).join(to);
                    for from in from {
                        let mut copy = Command::new("cp");
                        copy.args(["-r", "--preserve=timestamps", "--no-target-directory"]);
                        let name = Path::new(from).file_name().unwrap();
                        let into = if to.is_dir() { to.join(name) } else { to.clone() };
                        succeeds(copy.arg(context.join(from)).arg(into));
                    }
                }
                Step::Run { mounts, line } => run(line, mounts, &variables, &folder, caches, scratch),
                Step::Remark => {}
                Step::Copy { .. } | Step::Setting(..) => panic!("not a step that builds"),
            }
        }
    }
}

/// What the builder is sent: `.dockerignore` refuses everything and names what is let through.
fn context(scratch: &Path) -> std::path::PathBuf {
    let context = scratch.join("the context");
    fs::create_dir_all(&context).unwrap();
    let ignore = read(".dockerignore");
    let mut lines = ignore
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    assert_eq!(
        lines.next(),
        Some("*"),
        ".dockerignore: everything is refused first"
    );
    for line in lines {
        let name = line.strip_prefix('!').expect("then it names what is let through");
        let mut copy = Command::new("cp");
        copy.args(["-rp", "--parents", name]).arg(&context);
        succeeds(copy.current_dir(checkout("")));
    }
    context
}

fn run(
    line: &str,
    mounts: &[String],
    variables: &BTreeMap<String, String>,
    folder: &str,
    caches: &Path,
    scratch: &Path,
) {
    let mut command = Command::new("bwrap");
    command.args([
        "--die-with-parent",
        "--unshare-pid",
        "--tmpfs",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]);
    command.args(["--tmpfs", "/tmp"]);
    for folder in [
        "/usr", "/etc", "/opt", "/bin", "/lib", "/lib64", "/sbin", "/root", "/home",
    ] {
        let path = Path::new(folder);
        match fs::read_link(path) {
            Ok(target) => command.arg("--symlink").arg(target).arg(path),
            Err(_) if path.exists() => command.arg("--ro-bind").arg(path).arg(path),
            Err(_) => &mut command,
        };
    }
    // The toolchain is this machine's, and Cargo's registry is the one that the tests were built from.
    command
        .args(["--clearenv", "--setenv", "PATH"])
        .arg(std::env::var_os("PATH").unwrap());
    let home = std::env::var("HOME").expect("a home");
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    for (name, value) in [("HOME", &home), ("CARGO_HOME", &cargo)] {
        command.args(["--setenv", name, value]);
    }
    for name in ["RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Ok(value) = std::env::var(name) {
            command.args(["--setenv", name, &value]);
        }
    }
    command.args(["--bind", &cargo, &cargo]);
    let bind = |command: &mut Command, from: &Path, to: &str| {
        fs::create_dir_all(from).unwrap();
        command.arg("--bind").arg(from).arg(to);
    };
    for mount in mounts {
        let parts: BTreeMap<&str, &str> = mount.split(',').filter_map(|part| part.split_once('=')).collect();
        assert_eq!(parts.get("type"), Some(&"cache"), "{mount}");
        let target = parts["target"];
        if target == "/usr/local/cargo/registry" {
            continue; // where the image has Cargo's registry
        }
        bind(&mut command, &caches.join(target.trim_start_matches('/')), target);
    }
    for own in [folder, "/out"] {
        bind(&mut command, &scratch.join(own.trim_start_matches('/')), own);
    }
    for (name, value) in variables {
        command.args(["--setenv", name, value]);
    }
    succeeds(command.args(["--chdir", folder, "--", "sh", "-c", line]));
}
