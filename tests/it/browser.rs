//! The demonstration in a real browser: what a newcomer sees who types one command and opens what it prints.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::chromium::Chromium;

const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (390, 844);

/// A running demonstration and what it printed.
struct Demo {
    child: Child,
    link: String,
    console: String,
    shop: String,
    email: String,
    password: String,
    api_key: String,
    proxied: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_marketplace-connector"))
            .args([
                "demo",
                "--listen",
                "127.0.0.1:0",
                "--sandbox-listen",
                "127.0.0.1:0",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            said.push(line.unwrap());
            // The last that it prints is the call that shows a revoked connection.
            if said
                .last()
                .is_some_and(|line| line.starts_with("curl -i") && line.contains("/users/me"))
            {
                break;
            }
        }
        // What it says after that is read too: a closed pipe would end it.
        std::thread::spawn(move || lines.for_each(drop));
        let after = |label: &str| {
            said.iter()
                .find_map(|line| line.trim_start().strip_prefix(label))
                .unwrap_or_else(|| panic!("no {label} in {said:#?}"))
                .trim()
                .to_owned()
        };
        let sign_in = after("e-mail ");
        let (email, password) = sign_in.split_once(", password ").unwrap();
        let console = after("console ");
        Self {
            link: after("connect link "),
            shop: after("shop ").split(' ').next().unwrap().to_owned(),
            email: email.to_owned(),
            password: password.to_owned(),
            api_key: after("API key "),
            proxied: console.replace("/console", "/proxy/demo-seller/users/me"),
            console,
            child,
        }
    }

    /// Status and code of a proxied call.
    async fn call(&self) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client
            .get(&self.proxied)
            .bearer_auth(&self.api_key)
            .send()
            .await
            .unwrap();
        let code = answer.headers().get("connector-error");
        let code = code.map_or("", |code| code.to_str().unwrap());
        (answer.status().as_u16(), code.to_owned())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

async fn size(chromium: &Chromium, (width, height): (u32, u32)) {
    chromium.client.set_window_size(width, height).await.unwrap();
}

/// Reads the landing page in each language, consents at the other site, and comes back.
async fn connect(chromium: &Chromium, demo: &Demo) {
    size(chromium, PHONE).await;
    chromium.open(&demo.link).await;
    for (language, title) in [
        ("en", "Connect your Mercado Pago account"),
        ("es", "Conectar tu cuenta de Mercado Pago"),
        ("pt", "Conectar sua conta do Mercado Pago"),
    ] {
        if language != "en" {
            chromium
                .click(&format!("nav.languages a[hreflang={language}]"))
                .await;
        }
        assert_eq!(chromium.text(&format!("html[lang={language}] h1")).await, title);
        chromium.look_at(&format!("landing-{language}-phone")).await;
    }
    size(chromium, DESKTOP).await;
    chromium.look_at("landing-pt").await;
    chromium.click("form button[type=submit]").await;

    chromium.wait_for("#allow").await;
    let consent = chromium.client.current_url().await.unwrap();
    assert_eq!(
        consent.host_str(),
        Some("localhost"),
        "consent is given at another site"
    );
    chromium.look_at("consent").await;
    chromium.click("#allow").await;

    assert_eq!(
        chromium.text("body.seller .status-icon.good ~ .heading h1").await,
        "Account connected"
    );
    chromium.look_at("connected").await;
}

/// Signs in, with a wrong password first.
async fn sign_in(chromium: &Chromium, demo: &Demo, look: &str) {
    chromium.open(&demo.console).await;
    chromium.type_into("#email", &demo.email).await;
    chromium.type_into("#password", "not the password").await;
    chromium.look_at(&format!("sign-in{look}")).await;
    chromium.click("form button[type=submit]").await;
    chromium.wait_for("#problem").await;
    chromium.look_at(&format!("sign-in-refused{look}")).await;
    chromium.type_into("#password", &demo.password).await;
    chromium.click("form button[type=submit]").await;
    chromium.wait_for("body.console main#main").await;
    chromium.look_at(&format!("overview{look}")).await;
}

/// Finds the seller in the console and revokes, with confirmation.
async fn revoke(chromium: &Chromium) {
    chromium.click("nav a[href='/console/connections']").await;
    assert_eq!(chromium.text("table tbody th a").await, "demo-seller");
    chromium.look_at("connections").await;
    size(chromium, PHONE).await;
    chromium.look_at("connections-phone").await;
    size(chromium, DESKTOP).await;
    chromium.click("table tbody th a").await;
    assert_eq!(chromium.text("main h1").await, "demo-seller");
    chromium.look_at("connection").await;
    chromium.click("main a.danger[href$='/revoke']").await;
    chromium.wait_for("main form[action$='/revoke']").await;
    chromium.look_at("revoke-confirmation").await;
    chromium.click("main form[action$='/revoke'] button.danger").await;
    chromium
        .wait_for("main [role=status], .notice[role=status]")
        .await;
    let head = chromium.text("main .head").await;
    assert!(head.contains("revoked"), "{head}");
    chromium.look_at("revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_connects_a_seller_and_revokes_it_in_the_console() {
    let Some(chromium) = Chromium::start().await else {
        return;
    };
    let demo = Demo::start();
    connect(&chromium, &demo).await;
    assert_eq!(demo.call().await, (200, String::new()));
    sign_in(&chromium, &demo, "").await;
    revoke(&chromium).await;
    assert_eq!(demo.call().await, (409, "connection_revoked".to_owned()));
    chromium.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_prefers_dark_pages_gets_them() {
    let Some(chromium) = Chromium::start_with(&["--force-dark-mode"]).await else {
        return;
    };
    let demo = Demo::start();
    assert!(
        chromium
            .holds("matchMedia('(prefers-color-scheme: dark)').matches")
            .await
    );
    chromium.open(&demo.link).await;
    chromium.look_at("landing-dark").await;
    sign_in(&chromium, &demo, "-dark").await;
    chromium.open(&format!("{}/api-keys", demo.console)).await;
    chromium.look_at("api-keys-dark").await;
    chromium.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_pages_of_the_console_show_in_a_browser() {
    let Some(chromium) = Chromium::start().await else {
        return;
    };
    let demo = Demo::start();
    size(&chromium, DESKTOP).await;
    sign_in(&chromium, &demo, "").await;
    for page in ["connect-links/new", "api-keys", "team", "audit-log", "settings"] {
        let name = page.replace('/', "-");
        chromium.open(&format!("{}/{page}", demo.console)).await;
        chromium.wait_for("body.console main h1").await;
        chromium.look_at(&name).await;
        size(&chromium, PHONE).await;
        chromium.look_at(&format!("{name}-phone")).await;
        size(&chromium, DESKTOP).await;
    }
    chromium.open(&demo.console.replace("/console", "/docs")).await;
    chromium.wait_for("h1").await;
    chromium.look_at("docs").await;
    chromium.close().await;
}

/// Fills in the card of the name and pays; what the shop says then.
async fn pay(chromium: &Chromium, name: &str, verdict: &str) -> (String, String) {
    let field = chromium.wait_for("#name").await;
    field.clear().await.unwrap();
    field.send_keys(name).await.unwrap();
    chromium.click("#submit").await;
    for _ in 0..300 {
        if chromium.text("#verdict").await == verdict {
            return (chromium.text("#reason").await, chromium.text("#advice").await);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{}", chromium.text("#outcome").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_pays_in_the_shop_is_declined_with_advice_and_gets_the_money_back() {
    let Some(chromium) = Chromium::start().await else {
        return;
    };
    let demo = Demo::start();
    size(&chromium, DESKTOP).await;
    chromium.open(&demo.link).await;
    chromium.click("form button[type=submit]").await;
    chromium.click("#allow").await;
    chromium.wait_for("body.seller .status-icon.good").await;

    chromium.open(&demo.shop).await;
    chromium.wait_for("#seller option[value=demo-seller]").await;
    chromium.look_at("shop").await;
    let (reason, advice) = pay(&chromium, "FUND", "Declined").await;
    assert!(reason.starts_with("cc_rejected_insufficient_amount"), "{reason}");
    assert_eq!(advice, "Use another card or another means of payment.");
    size(&chromium, PHONE).await;
    chromium.look_at("shop-declined-phone").await;
    size(&chromium, DESKTOP).await;

    let (reason, _) = pay(&chromium, "APRO", "Approved").await;
    assert!(reason.starts_with("accredited, payment "), "{reason}");
    chromium.look_at("shop-approved").await;
    chromium.click("#refund").await;
    for _ in 0..300 {
        if chromium.text("#verdict").await == "Refunded" {
            assert!(chromium.text("#reason").await.starts_with("100 given back"));
            chromium.close().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{}", chromium.text("#outcome").await);
}
