package signature

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf16"
)

// jsonMost is the longest body whose JSON is written anew, in bytes.
const jsonMost = 1 << 20

type bodyVariant struct {
	body       []byte
	code, text string
}

// bodyVariants are the bodies from which this one may have been made on its way.
func bodyVariants(body []byte) []bodyVariant {
	var out []bodyVariant
	add := func(b []byte, code, text string) {
		if !bytes.Equal(b, body) {
			out = append(out, bodyVariant{b, code, text})
		}
	}
	newline := "line breaks at the body's end were added or removed after it was signed (an editor, a file, a template)"
	add(bytes.TrimRight(body, "\r\n"), "body-newline", newline)
	add(bytes.TrimSpace(body), "body-newline", newline)
	add(append(bytes.Clone(body), '\n'), "body-newline", newline)
	add(append(bytes.Clone(body), '\r', '\n'), "body-newline", newline)
	unix := bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
	add(unix, "body-line-ends", "line ends were changed to CRLF after the body was signed")
	add(bytes.ReplaceAll(unix, []byte("\n"), []byte("\r\n")), "body-line-ends", "line ends were changed from CRLF to LF after the body was signed")
	bom := []byte("\xef\xbb\xbf")
	add(bytes.TrimPrefix(body, bom), "body-bom", "a byte order mark was added to the body after it was signed")
	add(append(bom, body...), "body-bom", "the body's byte order mark was removed after it was signed")
	add(nil, "body-empty", "the sender signed an empty body")
	if raw, err := base64.StdEncoding.DecodeString(string(body)); err == nil {
		add(raw, "body-base64", "the body is base64 of what was signed: a function gateway hands it over so; decode it before")
	}
	out = append(out, formVariants(body)...)
	return append(out, jsonVariants(body)...)
}

// formVariants undo what form parsers do.
func formVariants(body []byte) []bodyVariant {
	values, err := url.ParseQuery(string(body))
	if err != nil || len(body) > jsonMost || !bytes.ContainsRune(body, '=') {
		return []bodyVariant{{
			[]byte("payload=" + url.QueryEscape(string(body))), "body-form",
			"the sender signed a form, and what arrived is the payload in it: verify the raw form",
		}}
	}
	out := []bodyVariant{{
		[]byte(values.Encode()), "body-form", "the form was parsed and written again, in another order or with other escapes: verify the raw bytes",
	}}
	if payload := values.Get("payload"); payload != "" {
		out = append(out, bodyVariant{[]byte(payload), "body-form", "the sender signed the payload and sent it inside a form"})
	}
	return out
}

// jsonVariants write the JSON anew in the ways of the common libraries.
func jsonVariants(body []byte) []bodyVariant {
	if len(body) > jsonMost || !json.Valid(body) {
		return nil
	}
	var kept bytes.Buffer
	if json.Compact(&kept, body) != nil {
		return nil
	}
	bases := []struct {
		text string
		json []byte
	}{{"", kept.Bytes()}}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var tree any
	if d.Decode(&tree) == nil {
		if sorted, err := marshal(tree); err == nil {
			bases = append(bases, struct {
				text string
				json []byte
			}{", names sorted", sorted})
		}
	}
	var out []bodyVariant
	for _, base := range bases {
		for _, e := range []struct {
			text string
			fn   func(string) string
		}{
			{"", plainString},
			{", everything beyond ASCII as \\u", asciiString},
			{", < > & as \\u", htmlString},
			{", / as \\/", slashString},
			{", / as \\/ and everything beyond ASCII as \\u", func(s string) string { return strings.ReplaceAll(asciiString(s), "/", `\/`) }},
		} {
			for _, sep := range []struct{ text, after string }{{"compactly", ""}, {"with a space after , and :", " "}} {
				again := restyle(base.json, sep.after, e.fn)
				out = append(out, reserialised(again, sep.text+base.text+e.text))
				out = append(out, reserialised(append(bytes.Clone(again), '\n'), sep.text+base.text+e.text+", with a line break at the end"))
			}
		}
		for _, indent := range []string{"  ", "    ", "\t"} {
			var b bytes.Buffer
			if json.Indent(&b, base.json, "", indent) == nil {
				out = append(out, reserialised(b.Bytes(), fmt.Sprintf("indented by %q", indent)+base.text))
			}
		}
	}
	return out
}

func reserialised(body []byte, how string) bodyVariant {
	return bodyVariant{body, "body-reserialised", "the signature is that of the same JSON written " + how +
		": something read the body and wrote it again. Verify the bytes as they came over the wire"}
}

// restyle writes compact JSON with after behind each comma and colon, and each text by how.
func restyle(compact []byte, after string, how func(string) string) []byte {
	var out bytes.Buffer
	for i := 0; i < len(compact); {
		c := compact[i]
		if c != '"' {
			out.WriteByte(c)
			if c == ',' || c == ':' {
				out.WriteString(after)
			}
			i++
			continue
		}
		end := i + 1
		for compact[end] != '"' {
			if compact[end] == '\\' {
				end++
			}
			end++
		}
		var s string
		_ = json.Unmarshal(compact[i:end+1], &s) // it was valid JSON
		out.WriteString(how(s))
		i = end + 1
	}
	return out.Bytes()
}

func plainString(s string) string {
	b, _ := marshal(s) // a text always can be
	return strings.NewReplacer("\\u2028", "\u2028", "\\u2029", "\u2029").Replace(string(b))
}

func htmlString(s string) string {
	b, _ := json.Marshal(s) // a text always can be
	return string(b)
}

func slashString(s string) string { return strings.ReplaceAll(plainString(s), "/", `\/`) }

func asciiString(s string) string {
	var b strings.Builder
	for _, r := range plainString(s) {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		}
	}
	return b.String()
}
