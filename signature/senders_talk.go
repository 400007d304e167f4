package signature

func chats() []Scheme {
	slack := Scheme{
		Name: "slack", Note: "events are JSON, commands and buttons are forms",
		Signature: header(Hex, HMACSHA256, "v0=", "X-Slack-Signature"),
		Clock:     both(Clock{Headers: []string{"X-Slack-Request-Timestamp"}, Unit: Seconds}),
		Signed:    "v0:{ts}:{body}", Key: KeyUTF8,
		Dedupe: Dedupe{JSON: []string{"event_id"}, Form: "trigger_id", Window: 72 * hour},
		Sender: Sender{
			Deadline: 3 * sec, Retries: Retries{On5xx: true, On4xx: true, Attempts: 3, For: 6 * minute},
			Disables: "an hour with less than 5 % successes",
		},
		Handshakes: []Handshake{{
			Method: "POST", Match: []Condition{{JSON: "type", Value: "url_verification"}}, Signed: true,
			Challenge: Field{JSON: "challenge"}, Answer: "{challenge}",
		}},
	}
	zoom := Scheme{
		Name: "zoom", Note: "greets again every 72 hours",
		Signature: header(Hex, HMACSHA256, "v0=", "X-Zm-Signature"),
		Clock:     both(Clock{Headers: []string{"X-Zm-Request-Timestamp"}, Unit: Seconds}),
		Signed:    "v0:{ts}:{body}", Key: KeyUTF8, Dedupe: Dedupe{Body: true},
		Sender: Sender{Deadline: 3 * sec, Retries: Retries{On5xx: true, Attempts: 3, For: 2 * hour}},
		Handshakes: []Handshake{{
			Method: "POST", Match: []Condition{{JSON: "event", Value: "endpoint.url_validation"}},
			Challenge: Field{JSON: "payload.plainToken"},
			Answer:    `{{"plainToken":"{challenge}","encryptedToken":"{hmac}"}}`, JSON: true,
		}},
	}
	discord := Scheme{
		Name: "discord", Note: "interactions. Discord sends bad signatures on purpose and expects 401; the key is the application's public key",
		Signature: header(Hex, Ed25519, "", "X-Signature-Ed25519"),
		Clock:     both(Clock{Headers: []string{"X-Signature-Timestamp"}, Unit: Seconds}),
		Signed:    "{ts}{body}", Key: KeyHex, Dedupe: Dedupe{JSON: []string{"id"}, Window: hour},
		Sender: Sender{Deadline: 3 * sec},
		Handshakes: []Handshake{{
			Method: "POST", Match: []Condition{{JSON: "type", Value: "1"}}, Signed: true, Answer: `{{"type":1}}`, JSON: true,
		}},
	}
	events := discord
	events.Name, events.Note = "discord-events", "webhook events, whose ping has another type than that of interactions"
	events.Dedupe = Dedupe{Body: true, BodyWindow: hour}
	events.Sender = Sender{Deadline: 3 * sec, Retries: Retries{On5xx: true, On4xx: true, For: 10 * minute}, Disables: "too many failures, after a mail"}
	events.Handshakes = []Handshake{{
		Method: "POST", Match: []Condition{{JSON: "type", Value: "0"}}, Signed: true, Status: 204,
	}}
	twitch := Scheme{
		Name: "twitch", Note: "a subscription is confirmed by its first request",
		Signature: header(Hex, HMACSHA256, "sha256=", "Twitch-Eventsub-Message-Signature"),
		Clock:     Clock{Headers: []string{"Twitch-Eventsub-Message-Timestamp"}, Unit: RFC3339, Past: 10 * minute, Future: 10 * minute},
		ID:        []string{"Twitch-Eventsub-Message-Id"},
		Signed:    "{id}{ts}{body}", Key: KeyUTF8,
		Dedupe: Dedupe{Headers: []string{"Twitch-Eventsub-Message-Id"}, Window: 72 * hour},
		Sender: Sender{Deadline: 5 * sec, Retries: Retries{On5xx: true}, Disables: "too many failures: the subscription is revoked"},
		Handshakes: []Handshake{{
			Method: "POST", Match: []Condition{{Header: "Twitch-Eventsub-Message-Type", Value: "webhook_callback_verification"}},
			Signed: true, Challenge: Field{JSON: "challenge"}, Answer: "{challenge}",
		}},
	}
	twitter := Scheme{
		Name: "twitter", Note: "greets about hourly; the key is the consumer secret",
		Signature: header(Base64, HMACSHA256, "sha256=", "X-Twitter-Webhooks-Signature"), Signed: "{body}", Key: KeyUTF8,
		Dedupe: Dedupe{Body: true},
		Sender: Sender{Deadline: 3 * sec, Disables: "a greeting that is not answered", Redeliver: "the Replay API"},
		Handshakes: []Handshake{{
			Method: "GET", Match: []Condition{{Query: "crc_token"}}, Challenge: Field{Query: "crc_token"},
			Answer: `{{"response_token":"sha256={hmacbase64}"}}`, JSON: true,
		}},
	}
	meta := Scheme{
		Name: "meta", Note: "Facebook, Instagram, WhatsApp: the key is the app's secret; the greeting carries a token of yours",
		Signature: header(Hex, HMACSHA256, "sha256=", "X-Hub-Signature-256"), Signed: "{body}", Key: KeyUTF8,
		Dedupe: Dedupe{Body: true},
		Sender: Sender{Deadline: 10 * sec, Retries: Retries{On5xx: true, On4xx: true, For: 36 * hour}, Disables: "an hour of failures"},
		Handshakes: []Handshake{{
			Method: "GET", Match: []Condition{{Query: "hub.mode", Value: "subscribe"}},
			Token: Field{Query: "hub.verify_token"}, Challenge: Field{Query: "hub.challenge"}, Answer: "{challenge}",
		}},
	}
	return []Scheme{slack, zoom, discord, events, twitch, twitter, meta}
}

func calls() []Scheme {
	twilio := Scheme{
		Name: "twilio", Note: "the URL is signed, with or without its port; then the form's fields, or the body's hash in the query",
		Signature: header(Base64, HMACSHA1, "", "X-Twilio-Signature"), Signed: "{url}{params}", Key: KeyUTF8,
		URL:    URLRules{Ports: true, BodyParam: "bodySHA256"},
		Dedupe: Dedupe{Headers: []string{"I-Twilio-Idempotency-Token"}, Body: true, Window: day, BodyWindow: 5 * minute},
		Sender: Sender{Deadline: 15 * sec, Redeliver: "none: read what is missing from the API"},
	}
	sendgrid := Scheme{
		Name: "sendgrid", Note: "the key is the verification key of the settings; the body ends in CRLF, which is signed too",
		Signature: header(Base64, ECDSAP256, "", "X-Twilio-Email-Event-Webhook-Signature"),
		Clock:     both(Clock{Headers: []string{"X-Twilio-Email-Event-Webhook-Timestamp"}, Unit: Seconds}),
		Signed:    "{ts}{body}", Key: KeyBase64,
		Dedupe: Dedupe{JSON: []string{"[].sg_event_id"}, Window: 72 * hour},
		Sender: Sender{Deadline: 10 * sec, Retries: Retries{On5xx: true, On4xx: true, For: day}},
	}
	return []Scheme{twilio, sendgrid}
}

func crms() []Scheme {
	v1 := Scheme{
		Name: "hubspot-v1", Note: "legacy: a bare hash, no HMAC: who has one request can append to its body and sign that. Use v3",
		Signature: header(Hex, SHA256, "", "X-Hubspot-Signature"), Signed: "{secret}{body}", Key: KeyUTF8,
		Dedupe: Dedupe{JSON: []string{"[].eventId"}, Window: 72 * hour},
		Sender: Sender{Deadline: 5 * sec, Retries: Retries{On5xx: true, On4xx: true, Attempts: 10, For: day}},
	}
	v2 := v1
	v2.Name, v2.Signed = "hubspot-v2", "{secret}{method}{url}{body}"
	v3 := v1
	v3.Name, v3.Note = "hubspot-v3", "the time is in milliseconds; some punctuation of the URL is signed decoded"
	v3.Signature = header(Base64, HMACSHA256, "", "X-Hubspot-Signature-V3")
	v3.Clock = both(Clock{Headers: []string{"X-Hubspot-Request-Timestamp"}, Unit: Milliseconds})
	v3.Signed = "{method}{urldecoded}{body}{ts}"
	return []Scheme{v1, v2, v3}
}

func clouds() []Scheme {
	sns := Scheme{
		Name: "sns", Note: "the key is the topic's ARN; the subscription is confirmed by a GET that its operator must allow",
		Signature: Carrier{
			JSON: "Signature", Format: Plain, Encoding: Base64,
			Accept: []Accept{{"1", RSASHA1}, {"2", RSASHA256}},
		},
		// A repeat keeps its time, and SNS repeats for an hour at most.
		Clock:  Clock{Unit: RFC3339, Past: 65 * minute, Future: 5 * minute},
		Key:    KeyUTF8,
		Dedupe: Dedupe{JSON: []string{"MessageId"}, Window: 72 * hour},
		Sender: Sender{
			Deadline: 15 * sec, Retries: Retries{On5xx: true, Attempts: 3, For: hour}, Redeliver: "the subscription's own dead-letter queue",
		},
		Handshakes: []Handshake{{
			Method: "POST", Match: []Condition{{JSON: "Type", Value: "SubscriptionConfirmation"}}, Signed: true,
			Fetch: Field{JSON: "SubscribeURL"},
		}},
		code: codeSNS,
	}
	graph := Scheme{
		Name: "ms-graph", Note: "each item carries the secret that the subscription was made with; whoever sees one can send more",
		Signature: Carrier{JSON: "value[].clientState", Format: Plain, Accept: []Accept{{"", Equal}}, Encoding: Text},
		Key:       KeyUTF8, Dedupe: Dedupe{Body: true},
		Sender: Sender{
			Deadline: 3 * sec, Retries: Retries{On5xx: true, On4xx: true, For: 4 * hour},
			Disables: "slow answers: notifications are dropped for a while", Redeliver: "none: read what is missing by a delta query",
		},
		Handshakes: []Handshake{{
			Method: "POST", Match: []Condition{{Query: "validationToken"}},
			Challenge: Field{Query: "validationToken"}, Answer: "{challenge}",
		}},
	}
	return []Scheme{sns, graph}
}

// generics are the common ways of senders that nobody has written down. A scheme of one's own says more.
func generics() []Scheme {
	return []Scheme{{
		Name: "hmac", Note: "hex HMAC-SHA256 of the body in X-Signature",
		Signature: header(Hex, HMACSHA256, "", "X-Signature"), Signed: "{body}", Key: KeyUTF8, Dedupe: Dedupe{Body: true},
	}, {
		Name: "basic", Note: "HTTP Basic: the key is user:password",
		Signature: header(Base64, Equal, "Basic ", "Authorization"), Key: KeyUTF8, Dedupe: Dedupe{Body: true},
	}, {
		Name: "bearer", Note: "a token in Authorization",
		Signature: header(Text, Equal, "Bearer ", "Authorization"), Key: KeyUTF8, Dedupe: Dedupe{Body: true},
	}, {
		Name: "api-key", Note: "a key in X-Api-Key",
		Signature: header(Text, Equal, "", "X-Api-Key"), Key: KeyUTF8, Dedupe: Dedupe{Body: true},
	}}
}
