package signature

import (
	"encoding/json"
	"strings"
	"time"
)

// adyenItemsMost bounds the items of one of Adyen's notifications; it sends up to six.
const adyenItemsMost = 64

// adyenFields are what Adyen signs of an item, in this order, joined by colons and not escaped.
func adyenFields() []string {
	return []string{
		"pspReference", "originalReference", "merchantAccountCode", "merchantReference",
		"amount.value", "amount.currency", "eventCode", "success",
	}
}

// verifyAdyen checks every item of a notification: the signature stands in each.
func (s *Scheme) verifyAdyen(req *Request, keys []Key, now time.Time) (Verified, *Error) {
	items, err := adyenItems(req.Body)
	if err != nil {
		return Verified{}, err
	}
	v := Verified{}
	for _, item := range items {
		text, sig, err := adyenSigned(item)
		if err != nil {
			return Verified{}, err
		}
		in := input{body: []byte(text)}
		v, err = s.matchAny(whole(), &in, []candidate{{s.Signature.Accept[0], sig}}, keys, nil, now)
		if err != nil {
			return Verified{}, err
		}
	}
	return v, nil
}

// whole is the template of schemes whose signed bytes are put together by code.
func whole() *template { return &template{parts: []part{{name: "body"}}} }

func adyenItems(body []byte) ([]map[string]json.RawMessage, *Error) {
	malformed := fault(Malformed, "the body is no notification of Adyen's")
	if !json.Valid(body) {
		return nil, malformed
	}
	top, err := object(body)
	if err != nil {
		return nil, malformed
	}
	var wrapped []json.RawMessage
	if json.Unmarshal(top["notificationItems"], &wrapped) != nil || len(wrapped) == 0 || len(wrapped) > adyenItemsMost {
		return nil, malformed
	}
	items := make([]map[string]json.RawMessage, 0, len(wrapped))
	for _, w := range wrapped {
		outer, err := object(w)
		if err != nil {
			return nil, malformed
		}
		item, err := object(outer["NotificationRequestItem"])
		if err != nil {
			return nil, fault(Malformed, "a NotificationRequestItem cannot be read: "+err.Error())
		}
		items = append(items, item)
	}
	return items, nil
}

// adyenSigned returns what is signed of an item, and its signature.
func adyenSigned(item map[string]json.RawMessage) (text, sig string, fail *Error) {
	amount, err := object(item["amount"])
	if err != nil && item["amount"] != nil {
		return "", "", fault(Malformed, "the item's amount cannot be read: "+err.Error())
	}
	values := make([]string, 0, 8)
	for _, name := range adyenFields() {
		from := item
		if inner, ok := strings.CutPrefix(name, "amount."); ok {
			from, name = amount, inner
		}
		v, _ := scalar(from[name]) // missing is empty
		values = append(values, v)
	}
	data, err := object(item["additionalData"])
	if err != nil {
		return "", "", fault(Missing, "an item has no additionalData.hmacSignature")
	}
	sig, _ = scalar(data["hmacSignature"])
	if sig == "" {
		return "", "", fault(Missing, "an item has no additionalData.hmacSignature")
	}
	return strings.Join(values, ":"), sig, nil
}

// signAdyen writes the signature into every item. The body is written anew, its names sorted.
func (s *Scheme) signAdyen(body []byte, key Key) ([]byte, error) {
	items, fail := adyenItems(body)
	if fail != nil {
		return nil, fail
	}
	top, err := object(body)
	if err != nil {
		return nil, err
	}
	wrapped := make([]any, 0, len(items))
	for _, item := range items {
		data := map[string]json.RawMessage{}
		if item["additionalData"] != nil {
			if data, err = object(item["additionalData"]); err != nil {
				return nil, err
			}
		}
		data["hmacSignature"] = json.RawMessage(`"-"`)
		if item["additionalData"], err = marshal(data); err != nil {
			return nil, err
		}
		text, _, fail := adyenSigned(item)
		if fail != nil {
			return nil, fail
		}
		sig, err := s.make(whole(), &input{body: []byte(text)}, s.Signature.Accept[0], key)
		if err != nil {
			return nil, err
		}
		if data["hmacSignature"], err = marshal(sig); err != nil {
			return nil, err
		}
		if item["additionalData"], err = marshal(data); err != nil {
			return nil, err
		}
		wrapped = append(wrapped, map[string]any{"NotificationRequestItem": item})
	}
	if top["notificationItems"], err = marshal(wrapped); err != nil {
		return nil, err
	}
	return marshal(top)
}

// marshal writes JSON without HTML's escapes.
func marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

// snsFields are what SNS signs of a message of a type, as name and value on lines of their own. Subject only if there.
func snsFields(kind string) []string {
	switch kind {
	case "Notification":
		return []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	case "SubscriptionConfirmation", "UnsubscribeConfirmation":
		return []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	}
	return nil
}

// snsMessage reads a message of SNS's: every field a text.
func snsMessage(body []byte) (map[string]string, *Error) {
	if !json.Valid(body) {
		return nil, fault(Malformed, "the body is no JSON")
	}
	fields, err := object(body)
	if err != nil {
		return nil, fault(Malformed, "the body cannot be read: "+err.Error())
	}
	message := map[string]string{}
	for name, raw := range fields {
		if v, ok := scalar(raw); ok {
			message[name] = v
		}
	}
	if snsFields(message["Type"]) == nil {
		return nil, fault(Malformed, "the body's Type is none of SNS's")
	}
	return message, nil
}

func (s *Scheme) verifySNS(req *Request, keys []Key, now time.Time) (Verified, *Error) {
	m, fail := snsMessage(req.Body)
	if fail != nil {
		return Verified{}, fail
	}
	if m["Signature"] == "" {
		return Verified{}, fault(Missing, "the body has no Signature")
	}
	at, fail := s.Clock.check(m["Timestamp"], now)
	if fail != nil {
		return Verified{}, fail
	}
	index, expired := -1, false
	for i, k := range keys {
		if k.IsZero() || string(k.material().secret) != m["TopicArn"] { // a name, no secret
			continue
		}
		if k.holds(now) {
			index = i
			break
		}
		expired = true
	}
	switch {
	case expired && index < 0:
		return Verified{}, fault(Mismatch, "the topic is no longer expected")
	case index < 0:
		return Verified{}, fault(Mismatch, "the TopicArn is not the expected one")
	}
	accept := Accept{}
	for _, a := range s.Signature.Accept {
		if a.Label == m["SignatureVersion"] {
			accept = a
		}
	}
	if accept.Algorithm == "" {
		return Verified{}, fault(Malformed, "the body's SignatureVersion is neither 1 nor 2")
	}
	chain, err := s.trusted(req, now)
	if err != nil {
		return Verified{}, fault(Mismatch, err.Error())
	}
	var text strings.Builder
	for _, name := range snsFields(m["Type"]) {
		if v, ok := m[name]; ok {
			text.WriteString(name + "\n" + v + "\n")
		}
	}
	in := input{body: []byte(text.String())}
	got := s.tryPublic(whole(), &in, []candidate{{accept, m["Signature"]}}, accept, keys[index], chain)
	switch {
	case got.broken:
		return Verified{}, fault(Malformed, "the body's Signature is no base64")
	case !got.ok:
		return Verified{}, fault(Mismatch, "the certificate's key did not make the signature")
	}
	return Verified{Key: index, Time: at, Label: accept.Label}, nil
}
