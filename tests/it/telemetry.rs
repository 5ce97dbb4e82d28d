//! ONNX Runtime's telemetry is off in the program and in every program that links the crate.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "the test reads its environment")]

use std::fs;
use std::path::Path;
use std::process::Command;
use tandem::engine::library::{LibrarySearch, find_or_fetch};
use tandem::engine::onnxruntime::{CpuOptions, LIBRARY, OnnxRuntime, telemetry};

/// Source of a library that logs host name lookups and internet sockets to the file `CALLS`.
const CALL_LOGGER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
static void note(const char *call, const char *what) {
  FILE *file = fopen(getenv("CALLS"), "a");
  if (file) { fprintf(file, "%s %s\n", call, what ? what : ""); fclose(file); }
}
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
  note("getaddrinfo", node);
  int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
      dlsym(RTLD_NEXT, "getaddrinfo");
  return next(node, service, hints, found);
}
int socket(int domain, int type, int protocol) {
  if (domain == AF_INET || domain == AF_INET6) note("socket", "internet");
  int (*next)(int, int, int) = dlsym(RTLD_NEXT, "socket");
  return next(domain, type, protocol);
}
"#;

fn call_logger(folder: &Path) -> std::path::PathBuf {
    let (source, library) = (folder.join("calls.c"), folder.join("calls.so"));
    fs::write(&source, CALL_LOGGER).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    assert!(compiler.status().expect("a C compiler").success());
    library
}

#[test]
fn loading_the_library_makes_no_file_and_no_network_call() {
    let (library, _) =
        find_or_fetch(&LibrarySearch::from_environment(LIBRARY), &mut |_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (home, calls) = (folder.path().join("home"), folder.path().join("calls"));
    fs::create_dir(&home).unwrap();
    fs::write(&calls, "").unwrap();
    let logger = call_logger(folder.path());
    let tandem = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(arguments)
            .current_dir(folder.path())
            .env_remove(telemetry::VARIABLE)
            .env_remove("XDG_CACHE_HOME")
            .env("HOME", &home)
            .env("TANDEM_CACHE_DIR", folder.path().join("cache"))
            .env("ORT_DYLIB_PATH", &library)
            .env("LD_PRELOAD", &logger)
            .env("CALLS", &calls)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = tandem(&["doctor"]);
    let line = printed.lines().find(|line| line.contains("ONNX Runtime ")).unwrap();
    assert!(line.contains("telemetry off (ORT_DISABLE_TELEMETRY=1)"), "{line}");
    // The networks of the tiny checkpoint run in the process that reads the command line, and in a
    // worker process.
    tandem(&["demo", "--ticks", "3", "--out", "demo"]);
    let routes = Path::new(tandem_testkit::ROOT).join("routes/short.xml");
    let eval = ["eval", "--driver", "automot", "--engine", "demo/engine", "--only", "11"];
    let options = ["--routes", routes.to_str().unwrap(), "--tick-cap", "3", "--out", "out"];
    tandem(&[&eval[..], &options].concat());

    let left: Vec<_> = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [] as [std::path::PathBuf; 0], "files appeared in HOME");
    assert_eq!(fs::read_to_string(&calls).unwrap(), "", "network calls");
}

#[test]
fn telemetry_is_off_in_a_linked_program() {
    let value = std::env::var_os(telemetry::VARIABLE);
    assert_eq!(value.as_deref(), Some("1".as_ref()));
    OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
}

#[test]
fn value_that_turns_telemetry_on_is_replaced() {
    let program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "telemetry::telemetry_is_off_in_a_linked_program"])
        .env(telemetry::VARIABLE, "0")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&program.stdout);
    assert!(program.status.success() && printed.contains("1 passed"), "{printed}");
}
