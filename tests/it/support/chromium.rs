//! A real headless Chromium, driven through chromedriver. Where it is not installed, the suites that need it say so loudly
//! and are left out, unless `REQUIRE_ALL_SUITES=1`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

const COMES_WITHIN: Duration = Duration::from_secs(30);

/// The accessibility checker.
const AXE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/suite-tools/node/node_modules/axe-core/axe.min.js"
);

/// Nothing of it goes anywhere but to the pages under test.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with an empty profile. It ends with this.
pub(crate) struct Chromium {
    pub(crate) client: Client,
    driver: Child,
    _profile: TempDir,
}

impl Chromium {
    /// Starts it; none where it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// With more arguments.
    pub(crate) async fn start_with(more: &[&str]) -> Option<Self> {
        let (Some(driver), Some(browser)) = (find(&["chromedriver"]), find(&["chromium", "google-chrome"]))
        else {
            leave_out("tests in a browser", "Chromium or its driver is not installed");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .env("HOME", profile.path())
            // A group of its own, so that the browser ends with its driver even if the session is not closed.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(driver.stdout.take().unwrap());
        let port = said
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let rest = line.split_once("started successfully on port ")?.1;
                Some(rest.trim_end_matches('.').to_owned())
            })
            .expect("the driver says its port");
        let mut arguments: Vec<_> = ARGUMENTS
            .iter()
            .chain(more)
            .map(|&argument| argument.to_owned())
            .collect();
        arguments.push(format!(
            "--user-data-dir={}",
            profile.path().join("profile").display()
        ));
        let capabilities = json!({
            "goog:chromeOptions": { "binary": browser, "args": arguments },
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Some(Self {
            client,
            driver,
            _profile: profile,
        })
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// The element, as soon as it is there.
    pub(crate) async fn wait_for(&self, css: &str) -> Element {
        let waiting = self.client.wait().at_most(COMES_WITHIN);
        match waiting.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!("{css}: {error}: {}", self.client.source().await.unwrap()),
        }
    }

    /// The text of an element, as soon as it is there.
    pub(crate) async fn text(&self, css: &str) -> String {
        self.wait_for(css).await.text().await.unwrap()
    }

    pub(crate) async fn click(&self, css: &str) {
        self.wait_for(css).await.click().await.unwrap();
    }

    pub(crate) async fn type_into(&self, css: &str, text: &str) {
        self.wait_for(css).await.send_keys(text).await.unwrap();
    }

    /// Whether a script that gives a yes or no says yes.
    pub(crate) async fn holds(&self, script: &str) -> bool {
        let answer = self.client.execute(&format!("return {script}"), vec![]).await;
        answer.unwrap() == json!(true)
    }

    /// Keeps a picture of the page, and checks what can be checked without eyes: the styles are there, nothing is wider
    /// than the window, and axe-core finds no barrier for people with disabilities.
    pub(crate) async fn look_at(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let picture = self.client.screenshot().await.unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
        assert!(
            self.holds("[...document.styleSheets].some(sheet => sheet.cssRules.length > 0)")
                .await,
            "{name} has no styles"
        );
        assert!(
            self.holds("document.documentElement.scrollWidth <= window.innerWidth")
                .await,
            "{name} is wider than the window"
        );
        let barriers = self.barriers().await;
        assert!(barriers.is_empty(), "{name}: {barriers:#?}");
    }

    /// What axe-core finds on the page.
    async fn barriers(&self) -> Vec<Value> {
        let Ok(axe) = std::fs::read_to_string(AXE) else {
            leave_out(
                "accessibility checks",
                "axe-core is not in `target/suite-tools`; `.ci/run` puts it there",
            );
            return Vec::new();
        };
        self.client.execute(&axe, vec![]).await.unwrap();
        let run = "const done = arguments[0]; axe.run(document).then(found => done(found.violations.map(violation => \
                   ({ rule: violation.id, help: violation.help, nodes: violation.nodes.map(node => node.html) }))))";
        let found = self.client.execute_async(run, vec![]).await.unwrap();
        found.as_array().unwrap().clone()
    }

    pub(crate) async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.driver.wait();
    }
}

/// Says that a suite is left out, or fails where none may be.
fn leave_out(suite: &str, why: &str) {
    let required = std::env::var("REQUIRE_ALL_SUITES").is_ok_and(|value| value == "1");
    assert!(!required, "{why}, and REQUIRE_ALL_SUITES=1 leaves no suite out");
    // Straight to the stream: the test harness hides what `eprintln!` writes in a test that passes.
    let _ = writeln!(std::io::stderr(), "\n*** LEFT OUT: {suite}: {why} ***\n");
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    names.iter().find_map(|name| {
        folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    })
}
