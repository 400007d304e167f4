package signature

import (
	"slices"
	"time"
)

// Lookup returns the scheme of a known sender, a copy of the caller's own, already validated. Names are those of [Names];
// "standard-webhooks" is another name of "standard".
func Lookup(name string) (*Scheme, bool) {
	if name == "standard-webhooks" {
		name = "standard"
	}
	for _, s := range senders() {
		if s.Name == name {
			return &s, s.Validate() == nil
		}
	}
	return nil, false
}

// Names returns the names of the known schemes, sorted.
func Names() []string {
	var names []string
	for _, s := range senders() {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names
}

const (
	sec    = Duration(time.Second)
	minute = Duration(time.Minute)
	hour   = Duration(time.Hour)
	day    = 24 * hour
)

func senders() []Scheme {
	return slices.Concat(standards(), payments(), shops(), gits(), chats(), calls(), crms(), clouds(), generics())
}

// both is the tolerance that most senders and Standard Webhooks advise, in both directions.
func both(c Clock) Clock {
	c.Past, c.Future = 5*minute, 5*minute
	return c
}

func header(encoding Encoding, a Algorithm, label, name string) Carrier {
	return Carrier{Headers: []string{name}, Format: Plain, Accept: []Accept{{label, a}}, Encoding: encoding}
}

func standards() []Scheme {
	accept := []Accept{{"v1", HMACSHA256}, {"v1a", Ed25519}}
	standard := Scheme{
		Name: "standard",
		Note: "Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature; Svix's own names of the headers too",
		Signature: Carrier{
			Headers: []string{"Webhook-Signature", "Svix-Signature"}, Format: List, Accept: accept, Encoding: Base64,
		},
		Clock:  both(Clock{Headers: []string{"Webhook-Timestamp", "Svix-Timestamp"}, Unit: Seconds}),
		ID:     []string{"Webhook-Id", "Svix-Id"},
		Signed: "{id}.{ts}.{body}",
		Key:    KeyWhsec,
		Dedupe: Dedupe{Headers: []string{"Webhook-Id", "Svix-Id"}, Window: 72 * hour},
		Sender: Sender{Deadline: 15 * sec, Retries: Retries{On5xx: true, On4xx: true}, Redeliver: "the sender's own portal"},
	}
	svix := standard
	svix.Name, svix.Note = "svix", "as standard, with Svix's names of the headers first"
	svix.Signature.Headers = []string{"Svix-Signature", "Webhook-Signature"}
	svix.Clock.Headers = []string{"Svix-Timestamp", "Webhook-Timestamp"}
	svix.ID = []string{"Svix-Id", "Webhook-Id"}
	svix.Dedupe.Headers = svix.ID
	svix.Sender.Retries = Retries{On5xx: true, On4xx: true, Attempts: 7, For: 28 * hour}
	svix.Sender.Disables = "5 days without a success"
	convoy := Scheme{
		Name: "convoy", Note: "Convoy's simple signature: over the body alone, so there is no window",
		Signature: header(Hex, HMACSHA256, "", "X-Convoy-Signature"), Signed: "{body}", Key: KeyUTF8, Dedupe: Dedupe{Body: true},
		Sender: Sender{Deadline: 10 * sec, Retries: Retries{On5xx: true, On4xx: true}, Redeliver: "the sender's Convoy"},
	}
	advanced := convoy
	advanced.Name, advanced.Note = "convoy-advanced", "Convoy's signature with a time: a comma stands between time and body"
	advanced.Signature.Format, advanced.Signature.Accept = Pairs, []Accept{{"v1", HMACSHA256}}
	advanced.Clock, advanced.Signed = both(Clock{Param: "t", Unit: Seconds}), "{ts},{body}"
	return []Scheme{standard, svix, convoy, advanced}
}

func payments() []Scheme {
	stripe := Scheme{
		Name: "stripe",
		Note: "the key is the whole text, whsec_ included; while a key rolls there are several v1; v0 alone is no signature",
		Signature: Carrier{
			Headers: []string{"Stripe-Signature"}, Format: Pairs, Accept: []Accept{{"v1", HMACSHA256}}, Encoding: Hex,
		},
		Clock: both(Clock{Param: "t", Unit: Seconds}), Signed: "{ts}.{body}", Key: KeyUTF8,
		Dedupe: Dedupe{JSON: []string{"id"}, Window: 72 * hour},
		Sender: Sender{
			Deadline: 10 * sec, Retries: Retries{On5xx: true, On4xx: true, For: 3 * day},
			Disables: "days without a success, after a mail", Redeliver: "Workbench, Events: Resend; or: stripe events resend",
		},
	}
	square := Scheme{
		Name: "square", Note: "the notification URL is signed as it was registered",
		Signature: header(Base64, HMACSHA256, "", "X-Square-Hmacsha256-Signature"), Signed: "{url}{body}", Key: KeyUTF8,
		Dedupe: Dedupe{JSON: []string{"event_id"}, Window: 72 * hour},
		Sender: Sender{Deadline: 10 * sec, Retries: Retries{On5xx: true, On4xx: true, Attempts: 11, For: day}, Redeliver: "the Events API"},
	}
	paddle := Scheme{
		Name: "paddle", Note: "pairs are separated by a semicolon; while a key rolls there are several h1",
		Signature: Carrier{
			Headers: []string{"Paddle-Signature"}, Format: Pairs, Separator: ";",
			Accept: []Accept{{"h1", HMACSHA256}}, Encoding: Hex,
		},
		Clock: both(Clock{Param: "ts", Unit: Seconds}), Signed: "{ts}:{body}", Key: KeyUTF8,
		Dedupe: Dedupe{JSON: []string{"event_id"}, Window: 72 * hour},
		Sender: Sender{
			Deadline: 5 * sec, Retries: Retries{On5xx: true, On4xx: true, Attempts: 60, For: 3 * day},
			Redeliver: "Developer tools, Notifications: replay",
		},
	}
	adyen := Scheme{
		Name: "adyen", Note: "each item holds its own signature over eight fields; all must verify. What is not among the eight is not signed",
		Signature: Carrier{
			JSON:   "notificationItems[].NotificationRequestItem.additionalData.hmacSignature",
			Format: Plain, Accept: []Accept{{"", HMACSHA256}}, Encoding: Base64,
		},
		Key: KeyHex,
		Dedupe: Dedupe{JSON: []string{
			"notificationItems[].NotificationRequestItem.pspReference",
			"notificationItems[].NotificationRequestItem.eventCode",
			"notificationItems[].NotificationRequestItem.success",
		}, Window: 72 * hour},
		Sender: Sender{
			Deadline: 10 * sec, Retries: Retries{On5xx: true, On4xx: true, For: 7 * day}, Answer: "[accepted]",
			Redeliver: "Customer Area, Developers, Webhooks: the queue",
		},
		code: codeAdyen,
	}
	banking := Scheme{
		Name: "adyen-banking", Note: "Adyen's platforms and banking: over the body; the key is hex",
		Signature: header(Base64, HMACSHA256, "", "HmacSignature"), Signed: "{body}", Key: KeyHex,
		Dedupe: Dedupe{JSON: []string{"id"}, Window: 72 * hour, BodyWindow: 72 * hour}, Sender: adyen.Sender,
	}
	paypal := Scheme{
		Name: "paypal", Note: "the key is the webhook's id. Of the body only its CRC-32 is signed: read the event again from PayPal before money moves",
		Signature: header(Base64, RSASHA256, "", "Paypal-Transmission-Sig"),
		// A repeat keeps its time, so the window is as long as PayPal repeats; the signed id tells a replay.
		Clock:  Clock{Headers: []string{"Paypal-Transmission-Time"}, Unit: RFC3339, Past: 72 * hour, Future: 5 * minute},
		ID:     []string{"Paypal-Transmission-Id"},
		Signed: "{id}|{ts}|{secret}|{bodycrc32}", Key: KeyUTF8,
		Dedupe: Dedupe{Headers: []string{"Paypal-Transmission-Id"}, Window: 73 * hour},
		Sender: Sender{
			Deadline: 20 * sec, Retries: Retries{On5xx: true, On4xx: true, Attempts: 25, For: 3 * day},
			Redeliver: "Webhooks events: Resend",
		},
		code: codePayPal,
	}
	return []Scheme{stripe, square, paddle, adyen, banking, paypal}
}

func shops() []Scheme {
	return []Scheme{{
		Name: "shopify", Note: "the id is not signed: repeats are told by the body too",
		Signature: header(Base64, HMACSHA256, "", "X-Shopify-Hmac-Sha256"), Signed: "{body}", Key: KeyUTF8,
		Dedupe: Dedupe{Headers: []string{"X-Shopify-Webhook-Id"}, Body: true, Window: 72 * hour, BodyWindow: 72 * hour},
		Sender: Sender{
			Deadline: 5 * sec, Retries: Retries{On5xx: true, On4xx: true, Attempts: 8, For: 4 * hour},
			Disables: "8 failures in a row: the subscription is deleted", Redeliver: "none: read what is missing from the Admin API",
		},
	}}
}

func gits() []Scheme {
	github := Scheme{
		Name: "github", Note: "the id is not signed, and is the same for all hooks and for redeliveries",
		Signature: header(Hex, HMACSHA256, "sha256=", "X-Hub-Signature-256"), Signed: "{body}", Key: KeyUTF8,
		Dedupe: Dedupe{
			Headers: []string{"X-Github-Delivery"}, Scope: "X-Github-Hook-Id", Body: true, Window: 72 * hour, BodyWindow: 72 * hour,
		},
		Sender: Sender{Deadline: 10 * sec, Redeliver: "the hook's Recent Deliveries: Redeliver, for 3 days"},
	}
	github.Signature.Accept = append(github.Signature.Accept, Accept{"sha512=", HMACSHA512})
	old := github
	old.Name, old.Note = "github-sha1", "GitHub's old header, for senders that have no other"
	old.Signature = header(Hex, HMACSHA1, "sha1=", "X-Hub-Signature")
	gitlab := Scheme{
		Name: "gitlab", Note: "the secret itself is sent: whoever sees one request can send more",
		Signature: header(Text, Equal, "", "X-Gitlab-Token"), Key: KeyUTF8,
		Dedupe: Dedupe{
			Headers: []string{"Idempotency-Key", "X-Gitlab-Event-Uuid"}, Scope: "X-Gitlab-Webhook-Uuid", Body: true,
			Window: 72 * hour, BodyWindow: 72 * hour,
		},
		Sender: Sender{
			Deadline:  10 * sec,
			Disables:  "4 failures in a row for a while, a 4xx for good",
			Redeliver: "the hook's Recent events: Resend Request, for 2 days",
		},
	}
	signed := gitlab
	signed.Name, signed.Note = "gitlab-signed", "GitLab with a signing token: as standard"
	signed.Signature = Carrier{
		Headers: []string{"Webhook-Signature"}, Format: List, Accept: []Accept{{"v1", HMACSHA256}}, Encoding: Base64,
	}
	signed.Clock, signed.ID = both(Clock{Headers: []string{"Webhook-Timestamp"}, Unit: Seconds}), []string{"Webhook-Id"}
	signed.Signed, signed.Key = "{id}.{ts}.{body}", KeyWhsec
	signed.Dedupe = Dedupe{Headers: []string{"Webhook-Id"}, Window: 72 * hour}
	return []Scheme{github, old, gitlab, signed}
}
