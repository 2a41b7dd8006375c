package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"kilonova/internal/fault"
)

const (
	defaultMaxBody = 1 << 20
	maxDepth       = 128 // of nested JSON arrays and objects
)

func (s *Service) maxBody(rt *Route) int64 {
	switch {
	case rt != nil && rt.MaxBody > 0:
		return rt.MaxBody
	case s.MaxBody > 0:
		return s.MaxBody
	}
	return defaultMaxBody
}

// readBody reads and parses the body as the route's kind says.
func (s *Service) readBody(req *Request, rt *Route) error {
	kind := rt.Body
	if kind == AutoBody {
		switch req.HTTP.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			kind = JSONBody
		default:
			kind = NoBody
		}
	}
	if kind == NoBody || kind == RawBody || req.body != nil { // action endpoints have read it already
		return nil
	}
	return s.readJSON(req, kind, s.maxBody(rt))
}

// readJSON reads at most limit bytes and decodes them.
func (s *Service) readJSON(req *Request, kind BodyKind, limit int64) error {
	r := req.HTTP
	if kind == JSONBody || kind == OptionalJSON && r.ContentLength != 0 {
		if err := s.checkType(r.Header.Get("Content-Type")); err != nil {
			return err
		}
	}
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return tooLarge(big.Limit)
		}
		return fault.Wrap(err, fault.Invalid, "The request body could not be read.")
	}
	if int64(len(body)) > limit {
		return tooLarge(limit)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if kind == OptionalJSON || kind == AnyJSON {
			return nil
		}
		return fault.New(fault.Invalid, "Malformed request body: a JSON object is expected and the body is empty.")
	}
	doc, err := DecodeJSON(body)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "Malformed request body: %s.", err)
	}
	if doc == nil && kind == OptionalJSON {
		return nil
	}
	if _, ok := doc.(map[string]any); !ok && kind != AnyJSON {
		return fault.New(fault.Invalid, "Malformed request body: a JSON object is expected.")
	}
	req.body, req.doc = body, doc
	return nil
}

func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "Request is too large: at most %d bytes are taken.", limit)
}

// checkType accepts application/json and its vendor forms. Text/plain is what some clients send when they mean nothing.
func (s *Service) checkType(header string) error {
	if header == "" && !s.StrictTypes {
		return nil
	}
	t, _, err := mime.ParseMediaType(header)
	if s.StrictTypes {
		if err == nil && t == "application/json" {
			return nil
		}
		if header == "" {
			t = "None"
		}
		return fault.New(fault.UnsupportedMedia, "The media type %s is not supported, use application/json.", t)
	}
	if err == nil && (t == "application/json" || t == "text/plain" && s.PolicyLast || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json")) {
		return nil
	}
	return fault.New(fault.UnsupportedMedia, "Unsupported Content-Type: %q. Send application/json.", header)
}

// acceptsJSON tells whether the Accept header, if there is one, allows application/json.
func acceptsJSON(r *http.Request) bool {
	lines := r.Header.Values("Accept")
	if len(lines) == 0 {
		return true
	}
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			t, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err != nil || params["q"] == "0" {
				continue
			}
			if t == "*/*" || t == "application/*" || t == "application/json" {
				return true
			}
		}
	}
	return false
}

// DecodeJSON decodes one JSON value with numbers as json.Number. Unlike json.Unmarshal it refuses duplicate keys, invalid UTF-8, the
// character NUL, which not every database can keep, and anything that follows the value. The error is a lower-case phrase that may be shown to the client.
func DecodeJSON(body []byte) (any, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("it is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON value")
	}
	return v, nil
}

var errNUL = errors.New("a text holds the character NUL")

func decodeValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, notJSON(err)
	}
	delim, ok := t.(json.Delim)
	if !ok {
		if text, ok := t.(string); ok && !storable(text) {
			return nil, errNUL
		}
		return t, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	if delim == '[' {
		return decodeArray(d, depth+1)
	}
	return decodeObject(d, depth+1)
}

func decodeArray(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		v, err := decodeValue(d, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(err)
	}
	return list, nil
}

func decodeObject(d *json.Decoder, depth int) (any, error) {
	m := map[string]any{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		key, ok := t.(string)
		if !ok {
			return nil, errors.New("a key is not a string")
		}
		if !storable(key) {
			return nil, errNUL
		}
		if _, twice := m[key]; twice {
			return nil, fmt.Errorf("the key %q stands twice", key)
		}
		v, err := decodeValue(d, depth)
		if err != nil {
			return nil, err
		}
		m[key] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(err)
	}
	return m, nil
}

func notJSON(err error) error {
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return fmt.Errorf("it is not JSON (at byte %d)", s.Offset)
	}
	return errors.New("it is not JSON (it ends too early)")
}

// Pruner is a Schema that can drop the keys that it does not know instead of refusing them: what legacy roots do.
type Pruner interface {
	// Prune deletes unknown keys from doc, in place.
	Prune(doc any)
}

// validate judges query and body by the route's schemas.
func validate(req *Request, rt *Route) error {
	if q := req.HTTP.URL.RawQuery; q != "" {
		for key, values := range req.Query() {
			if !storable(key) || slices.ContainsFunc(values, func(s string) bool { return !storable(s) }) {
				return fault.New(fault.Invalid, "Query string is not UTF-8 encoded.")
			}
		}
	}
	if rt.Query != nil {
		if sch := rt.Query(req.Version); sch != nil {
			doc := make(map[string]any, len(req.Query()))
			for key, values := range req.Query() {
				list := make([]any, len(values))
				for i, v := range values {
					list[i] = v
				}
				doc[key] = list
			}
			if err := sch.Validate(doc); err != nil {
				return err
			}
		}
	}
	if rt.Schema == nil || req.doc == nil {
		return nil
	}
	sch := rt.Schema(req.Version)
	if sch == nil {
		return nil
	}
	if p, ok := sch.(Pruner); ok && req.Legacy {
		p.Prune(req.doc)
		b, err := json.Marshal(req.doc)
		if err != nil {
			return fmt.Errorf("encode pruned body: %w", err)
		}
		req.body = b
	}
	return sch.Validate(req.doc)
}

// storable tells whether a text can be kept by every database: valid UTF-8 without NUL.
func storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
