//! The words of the sellers' pages in Spanish, Portuguese and English. `{marketplace}` is replaced by the marketplace's
//! name. Spanish avoids the imperative where `tú` and `vos` differ: the pages are read from Mexico to Argentina.

use super::seller::Ending;
use crate::http::locale::Locale;

/// What is the same on all pages, and the landing page.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) language_label: &'static str,
    pub(super) landing_title: &'static str,
    pub(super) landing_lead: &'static str,
    pub(super) landing_may: [&'static str; 2],
    pub(super) landing_password: &'static str,
    pub(super) landing_undo: &'static str,
    pub(super) landing_button: &'static str,
    pub(super) seller_label: &'static str,
    pub(super) expires_label: &'static str,
    pub(super) request_label: &'static str,
}

impl Texts {
    pub(super) fn of(locale: Locale) -> &'static Self {
        match locale {
            Locale::Es => &ES,
            Locale::Pt => &PT,
            Locale::En => &EN,
        }
    }
}

const ES: Texts = Texts {
    language_label: "Idioma",
    landing_title: "Conectar tu cuenta de Mercado Pago",
    landing_lead: "{marketplace} necesita tu permiso para cobrar tus ventas. El dinero llega a tu propia cuenta de Mercado Pago.",
    landing_may: [
        "{marketplace} podrá cobrar a tus compradores en tu nombre, con pagos únicos o suscripciones.",
        "Podrá consultar y devolver los pagos de esas ventas.",
    ],
    landing_password: "El permiso se da en la página de Mercado Pago: {marketplace} nunca ve tu contraseña.",
    landing_undo: "Es posible quitarlo cuando quieras, desde tu cuenta de Mercado Pago.",
    landing_button: "Continuar a Mercado Pago",
    seller_label: "Vendedor",
    expires_label: "El enlace vence",
    request_label: "Referencia",
};

const PT: Texts = Texts {
    language_label: "Idioma",
    landing_title: "Conectar sua conta do Mercado Pago",
    landing_lead: "{marketplace} precisa da sua permissão para receber o pagamento das suas vendas. O dinheiro vai para a sua própria conta do Mercado Pago.",
    landing_may: [
        "{marketplace} poderá cobrar seus compradores em seu nome, com pagamentos únicos ou assinaturas.",
        "Poderá consultar e devolver os pagamentos dessas vendas.",
    ],
    landing_password: "A permissão é dada na página do Mercado Pago: {marketplace} nunca vê a sua senha.",
    landing_undo: "Você pode removê-la quando quiser, na sua conta do Mercado Pago.",
    landing_button: "Continuar para o Mercado Pago",
    seller_label: "Vendedor",
    expires_label: "O link expira em",
    request_label: "Referência",
};

const EN: Texts = Texts {
    language_label: "Language",
    landing_title: "Connect your Mercado Pago account",
    landing_lead: "{marketplace} needs your permission to collect the payments for your sales. The money goes to your own Mercado Pago account.",
    landing_may: [
        "{marketplace} will be able to charge your buyers on your behalf, once or by subscription.",
        "It will be able to look up and refund the payments of those sales.",
    ],
    landing_password: "You give permission on Mercado Pago's own page: {marketplace} never sees your password.",
    landing_undo: "You can take it back at any time in your Mercado Pago account.",
    landing_button: "Continue to Mercado Pago",
    seller_label: "Seller",
    expires_label: "Link valid until",
    request_label: "Reference",
};

/// The words for one ending.
#[derive(Debug)]
pub(super) struct EndingText {
    pub(super) title: &'static str,
    pub(super) lead: &'static str,
    pub(super) next: Option<&'static str>,
}

const fn text(title: &'static str, lead: &'static str, next: Option<&'static str>) -> EndingText {
    EndingText { title, lead, next }
}

pub(super) fn ending(locale: Locale, ending: Ending) -> EndingText {
    match locale {
        Locale::Es => spanish(ending),
        Locale::Pt => portuguese(ending),
        Locale::En => english(ending),
    }
}

const fn spanish(ending: Ending) -> EndingText {
    match ending {
        Ending::Connected => text(
            "Cuenta conectada",
            "Tu cuenta de Mercado Pago está conectada con {marketplace}. Ya es posible cerrar esta página.",
            None,
        ),
        Ending::Denied => text(
            "No se conectó la cuenta",
            "En Mercado Pago se eligió no dar permiso a {marketplace}. No cambió nada en tu cuenta.",
            Some("Si fue un error, basta con abrir otra vez el mismo enlace."),
        ),
        Ending::LinkInvalid => text(
            "Este enlace ya no sirve",
            "El enlace venció, ya se usó o está incompleto.",
            Some("{marketplace} puede enviarte uno nuevo."),
        ),
        Ending::AttemptInvalid => text(
            "No pudimos reconocer este intento",
            "La respuesta de Mercado Pago no corresponde a un intento reciente de este navegador. No se conectó nada.",
            Some(
                "Hay que abrir otra vez el enlace y terminar en el mismo navegador, en menos de 10 minutos.",
            ),
        ),
        Ending::AccountMismatch => text(
            "Es otra cuenta de Mercado Pago",
            "Antes conectaste otra cuenta con {marketplace}. Por seguridad no la cambiamos.",
            Some(
                "Para seguir con la cuenta de antes, hay que salir de Mercado Pago y abrir otra vez el enlace. Para cambiar de \
                 cuenta, {marketplace} debe enviarte un enlace que lo permita.",
            ),
        ),
        Ending::AccountInUse => text(
            "Esa cuenta ya está en uso",
            "La cuenta de Mercado Pago ya está conectada con otro vendedor de {marketplace}.",
            Some(
                "Puedes abrir otra vez el enlace y entrar con otra cuenta de Mercado Pago, o escribir a {marketplace}.",
            ),
        ),
        Ending::ProviderUnavailable => text(
            "Mercado Pago no responde",
            "No pudimos completar la conexión porque Mercado Pago no respondió a tiempo.",
            Some("En unos minutos se puede abrir otra vez el mismo enlace."),
        ),
        Ending::ExchangeFailed => text(
            "Mercado Pago no confirmó la conexión",
            "El permiso se dio, pero Mercado Pago no aceptó completarlo.",
            Some(
                "Se puede abrir otra vez el mismo enlace. Si vuelve a pasar, {marketplace} necesita la referencia de abajo.",
            ),
        ),
        Ending::TooManyAttempts => text(
            "Demasiados intentos",
            "Hubo demasiados intentos en poco tiempo.",
            Some("En unos minutos se puede abrir otra vez el mismo enlace."),
        ),
        Ending::ForeignForm => text(
            "No se aceptó el pedido",
            "El pedido vino de otro sitio, y por seguridad no se aceptó.",
            Some("Hay que abrir el enlace que envió {marketplace} y continuar desde esa página."),
        ),
        Ending::NotFound => text(
            "No hay nada aquí",
            "La dirección está incompleta o ya no existe.",
            Some("Hay que abrir el enlace completo que envió {marketplace}."),
        ),
        Ending::Failure => text(
            "Algo falló de nuestro lado",
            "No pudimos completar el pedido. No es un problema de tu cuenta.",
            Some(
                "En unos minutos se puede abrir otra vez el mismo enlace. Si vuelve a pasar, {marketplace} necesita la referencia de abajo.",
            ),
        ),
    }
}

const fn portuguese(ending: Ending) -> EndingText {
    match ending {
        Ending::Connected => text(
            "Conta conectada",
            "Sua conta do Mercado Pago está conectada com {marketplace}. Você já pode fechar esta página.",
            None,
        ),
        Ending::Denied => text(
            "A conta não foi conectada",
            "No Mercado Pago você escolheu não dar permissão a {marketplace}. Nada mudou na sua conta.",
            Some("Se foi um engano, abra o mesmo link outra vez."),
        ),
        Ending::LinkInvalid => text(
            "Este link não vale mais",
            "O link expirou, já foi usado ou está incompleto.",
            Some("Peça um novo link a {marketplace}."),
        ),
        Ending::AttemptInvalid => text(
            "Não reconhecemos esta tentativa",
            "A resposta do Mercado Pago não corresponde a uma tentativa recente deste navegador. Nada foi conectado.",
            Some("Abra o link outra vez e termine no mesmo navegador, em menos de 10 minutos."),
        ),
        Ending::AccountMismatch => text(
            "É outra conta do Mercado Pago",
            "Antes você conectou outra conta com {marketplace}. Por segurança, não fizemos a troca.",
            Some(
                "Para continuar com a conta anterior, saia do Mercado Pago e abra o link outra vez. Para trocar de conta, peça a \
                 {marketplace} um link que permita isso.",
            ),
        ),
        Ending::AccountInUse => text(
            "Essa conta já está em uso",
            "A conta do Mercado Pago já está conectada com outro vendedor de {marketplace}.",
            Some("Abra o link outra vez e entre com outra conta do Mercado Pago, ou fale com {marketplace}."),
        ),
        Ending::ProviderUnavailable => text(
            "O Mercado Pago não está respondendo",
            "Não foi possível concluir a conexão porque o Mercado Pago não respondeu a tempo.",
            Some("Abra o mesmo link outra vez em alguns minutos."),
        ),
        Ending::ExchangeFailed => text(
            "O Mercado Pago não confirmou a conexão",
            "A permissão foi dada, mas o Mercado Pago não aceitou concluí-la.",
            Some(
                "Abra o mesmo link outra vez. Se acontecer de novo, envie a {marketplace} a referência abaixo.",
            ),
        ),
        Ending::TooManyAttempts => text(
            "Tentativas demais",
            "Houve tentativas demais em pouco tempo.",
            Some("Abra o mesmo link outra vez em alguns minutos."),
        ),
        Ending::ForeignForm => text(
            "O pedido não foi aceito",
            "O pedido veio de outro site e, por segurança, não foi aceito.",
            Some("Abra o link enviado por {marketplace} e continue a partir dessa página."),
        ),
        Ending::NotFound => text(
            "Não há nada aqui",
            "O endereço está incompleto ou não existe mais.",
            Some("Abra o link completo enviado por {marketplace}."),
        ),
        Ending::Failure => text(
            "Algo falhou do nosso lado",
            "Não foi possível concluir o pedido. Não é um problema da sua conta.",
            Some(
                "Abra o mesmo link outra vez em alguns minutos. Se acontecer de novo, envie a {marketplace} a referência abaixo.",
            ),
        ),
    }
}

const fn english(ending: Ending) -> EndingText {
    match ending {
        Ending::Connected => text(
            "Account connected",
            "Your Mercado Pago account is connected to {marketplace}. You can close this page.",
            None,
        ),
        Ending::Denied => text(
            "The account was not connected",
            "At Mercado Pago you chose not to give permission to {marketplace}. Nothing changed in your account.",
            Some("If that was a mistake, open the same link again."),
        ),
        Ending::LinkInvalid => text(
            "This link no longer works",
            "The link is over, was used already, or is incomplete.",
            Some("Ask {marketplace} for a new one."),
        ),
        Ending::AttemptInvalid => text(
            "We do not recognise this attempt",
            "Mercado Pago's answer does not belong to a recent attempt of this browser. Nothing was connected.",
            Some("Open the link again and finish in the same browser, within 10 minutes."),
        ),
        Ending::AccountMismatch => text(
            "That is another Mercado Pago account",
            "You connected a different account to {marketplace} before. To be safe we did not change it.",
            Some(
                "To go on with the earlier account, sign out of Mercado Pago and open the link again. To change accounts, ask \
                 {marketplace} for a link that allows it.",
            ),
        ),
        Ending::AccountInUse => text(
            "That account is taken",
            "The Mercado Pago account is already connected to another seller of {marketplace}.",
            Some("Open the link again and sign in with another Mercado Pago account, or ask {marketplace}."),
        ),
        Ending::ProviderUnavailable => text(
            "Mercado Pago is not answering",
            "We could not finish connecting, because Mercado Pago did not answer in time.",
            Some("Open the same link again in a few minutes."),
        ),
        Ending::ExchangeFailed => text(
            "Mercado Pago did not confirm",
            "You gave permission, but Mercado Pago did not agree to complete it.",
            Some(
                "Open the same link again. If it happens once more, tell {marketplace} the reference below.",
            ),
        ),
        Ending::TooManyAttempts => text(
            "Too many attempts",
            "There were too many attempts in a short time.",
            Some("Open the same link again in a few minutes."),
        ),
        Ending::ForeignForm => text(
            "The request was not accepted",
            "It came from another site, and to be safe it was not accepted.",
            Some("Open the link that {marketplace} sent and go on from that page."),
        ),
        Ending::NotFound => text(
            "There is nothing here",
            "The address is incomplete or no longer exists.",
            Some("Open the complete link that {marketplace} sent."),
        ),
        Ending::Failure => text(
            "Something failed on our side",
            "We could not complete the request. It is not a problem of your account.",
            Some(
                "Open the same link again in a few minutes. If it happens once more, tell {marketplace} the reference below.",
            ),
        ),
    }
}
