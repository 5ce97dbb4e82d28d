//! A headless Chromium that tests control through its debugging pipe.

use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Timeout of every wait, far above what a loaded machine takes.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct Browser {
    child: Child,
    commands: File,
    messages: Receiver<Value>,
    /// Events of the page, in order.
    pub(crate) events: Vec<Value>,
    session: String,
    last_id: u64,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts Chromium. Returns `None`, with a message, if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let program = PathBuf::from("/usr/bin/chromium");
        if !program.exists() {
            eprintln!("skipped: /usr/bin/chromium is missing");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let [input, output] = ["input", "output"].map(|name| folder.path().join(name));
        for pipe in [&input, &output] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        // The browser reads commands from descriptor 3 and writes to 4.
        let script = "exec \"$0\" --headless=new --no-sandbox --disable-gpu --no-first-run \
                      --disable-dev-shm-usage --disable-background-networking \
                      --user-data-dir=\"$3\" --remote-debugging-pipe about:blank 3<\"$1\" 4>\"$2\"";
        let child = Command::new("bash")
            .args(["-c", script])
            .arg(&program)
            .args([&input, &output])
            .arg(folder.path().join("profile"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = OpenOptions::new().write(true).open(&input).unwrap();
        let mut reader = BufReader::new(File::open(&output).unwrap());
        let (sender, messages) = sync_channel(4096);
        std::thread::Builder::new()
            .name("browser".to_owned())
            .spawn(move || {
                let mut bytes = Vec::new();
                while reader.read_until(0, &mut bytes).is_ok_and(|read| read > 1) {
                    bytes.pop();
                    let Ok(message) = serde_json::from_slice(&bytes) else { break };
                    if sender.send(message).is_err() {
                        break;
                    }
                    bytes.clear();
                }
            })
            .unwrap();
        let mut browser = Self {
            child,
            commands,
            messages,
            events: Vec::new(),
            session: String::new(),
            last_id: 0,
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol and waits for its answer.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let answer = self.messages.recv_timeout(TIMEOUT).expect("the browser answers");
            if answer["id"] == json!(self.last_id) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Evaluates a JavaScript expression; promises are awaited.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) fn wait_for(&mut self, expression: &str) {
        let polled = format!(
            "new Promise((done) => {{ const poll = (n) => {{ \
             let found = false; try {{ found = Boolean({expression}); }} catch {{}} \
             if (found || n > 1200) done(found); else setTimeout(poll, 50, n + 1); }}; poll(0); }})"
        );
        let found = self.value(&polled);
        assert_eq!(found, json!(true), "timed out waiting for: {expression}");
    }

    /// Opens a file and waits for it to be loaded.
    pub(crate) fn open(&mut self, file: &Path, fragment: &str) {
        // Without leaving the page first, a new fragment of the same page would not load it again.
        self.call("Page.navigate", json!({"url": "about:blank"}));
        let url = format!("file://{}{fragment}", file.display());
        self.call("Page.navigate", json!({"url": url}));
        self.wait_for("document.readyState === 'complete' && location.protocol === 'file:'");
    }

    /// Sets width and height in CSS pixels, and the color scheme, `light` or `dark`.
    pub(crate) fn show_as(&mut self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Presses and releases a key on the focused element.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key}));
        }
    }

    /// Writes a PNG file of the page, `height` pixels from `from` on.
    pub(crate) fn picture(&mut self, file: &Path, from: u32, width: u32, height: u32) {
        let clip = json!({"x": 0, "y": from, "width": width, "height": height, "scale": 1});
        let parameters = json!({"format": "png", "clip": clip, "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", parameters);
        let decoded = base64(picture["data"].as_str().unwrap());
        fs::write(file, decoded).unwrap();
    }

    /// Errors and warnings of the page.
    pub(crate) fn errors(&self) -> Vec<String> {
        let is_error = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].iter().any(|kind| event["params"]["type"] == *kind)
            }
            Some("Log.entryAdded") => {
                let level = &event["params"]["entry"]["level"];
                ["error", "warning"].iter().any(|kind| level == *kind)
            }
            _ => false,
        };
        self.events.iter().filter(is_error).map(Value::to_string).collect()
    }

    /// Addresses that the page requested.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent")
            .map(|event| event["params"]["request"]["url"].as_str().unwrap_or("?").to_owned())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closing the pipe ends the browser; one that hangs is killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Decodes base64 (RFC 4648).
fn base64(text: &str) -> Vec<u8> {
    let place = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = text.bytes().filter(|&letter| letter != b'=').collect();
    let mut bytes = Vec::new();
    for chunk in letters.chunks(4) {
        let bits = chunk.iter().fold(0_u32, |bits, &letter| bits << 6 | u32::from(place(letter)));
        let bits = bits << (6 * (4 - chunk.len()));
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}
