package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"

	"kilonova/internal/fault"
)

// exchange is the writer of one answer. Until a route takes the request it swallows what the mux itself would write.
type exchange struct {
	http.ResponseWriter
	req        *Request
	negotiated error // what microversion negotiation said
	routed     bool
	status     int
	bytes      int64
	scratch    http.Header
}

// Header is the answer's header, or a scratch one while the mux speaks for itself.
func (x *exchange) Header() http.Header {
	if x.routed {
		return x.ResponseWriter.Header()
	}
	if x.scratch == nil {
		x.scratch = http.Header{}
	}
	return x.scratch
}

// WriteHeader notes the status.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	if x.routed {
		x.ResponseWriter.WriteHeader(status)
	}
}

// Write counts the bytes.
func (x *exchange) Write(b []byte) (int, error) {
	if !x.routed {
		return len(b), nil
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const keepBuffer = 1 << 20 // larger ones are left to the collector

// finish writes the answer of a handler, or the error in the service's form.
func (v *server) finish(x *exchange, reply *Reply, err error) {
	if err != nil {
		reply = v.errorReply(x, err)
	}
	if reply == nil {
		reply = NoContent()
	}
	buf := buffers.Get().(*bytes.Buffer) //nolint:forcetypeassert // the pool holds nothing else
	defer func() {
		if buf.Cap() <= keepBuffer {
			buf.Reset()
			buffers.Put(buf)
		}
	}()
	body, stream, err := encode(buf, reply.Body)
	if err != nil {
		v.log.Error("encode reply", "service", v.Name, "request_id", x.req.RequestID, "error", err)
		reply = v.WriteError(x.req, fault.New(fault.Internal, internalText))
		buf.Reset()
		if body, stream, err = encode(buf, reply.Body); err != nil {
			body, stream = nil, nil
		}
	}
	v.send(x, reply, body, stream)
}

// encode gives the bytes of a reply's body, or the reader to stream from.
func encode(buf *bytes.Buffer, body any) ([]byte, io.Reader, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil, nil
	case []byte:
		return b, nil, nil
	case io.Reader:
		return nil, b, nil
	case Appender:
		out, err := b.AppendJSON(buf.AvailableBuffer())
		if cap(out) > buf.Cap() {
			*buf = *bytes.NewBuffer(out[:0]) // the pool keeps the larger one
		}
		return out, nil, err
	}
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		return nil, nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil, nil
}

func (v *server) send(x *exchange, reply *Reply, body []byte, stream io.Reader) {
	h := x.Header()
	for k, values := range reply.Header {
		h[k] = values
	}
	h.Set("X-Openstack-Request-Id", x.req.RequestID)
	if v.Name == "compute" {
		h.Set("X-Compute-Request-Id", x.req.RequestID)
	}
	v.announce(x.req, h)
	status := reply.Status
	if status == 0 {
		status = http.StatusOK
		if body == nil && stream == nil {
			status = http.StatusNoContent
		}
	}
	if c, ok := stream.(io.Closer); ok {
		defer func() { _ = c.Close() }() // nothing more to say to the client
	}
	switch {
	case stream != nil:
		if h.Get("Content-Type") == "" {
			h.Set("Content-Type", "application/octet-stream")
		}
	case status != http.StatusNoContent && status != http.StatusNotModified:
		if h.Get("Content-Type") == "" && (body != nil || v.Name == "compute") {
			h.Set("Content-Type", "application/json")
		}
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	x.WriteHeader(status)
	if stream == nil {
		_, _ = x.Write(body) // the client has gone: nobody to tell
		return
	}
	if x.req.HTTP.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(x, stream); err != nil && x.req.HTTP.Context().Err() == nil {
		v.log.Error("stream reply", "service", v.Name, "request_id", x.req.RequestID, "error", err)
		panic(http.ErrAbortHandler) // the client must see that the body is not whole
	}
}

// errorReply turns an error into the service's form and logs what the client must not see.
func (v *server) errorReply(x *exchange, err error) *Reply {
	var e *fault.Error
	var k fault.Kind
	switch {
	case errors.As(err, &e):
	case errors.As(err, &k):
		e = &fault.Error{Kind: k, Cause: err}
	case errors.Is(err, context.Canceled) && x.req.HTTP.Context().Err() != nil:
		e = fault.Wrap(err, fault.Unavailable, "The request was cancelled.")
	case errors.Is(err, context.DeadlineExceeded):
		e = fault.Wrap(err, fault.Unavailable, "The request took too long. Try again later.")
	default:
		e = fault.Wrap(err, fault.Internal, internalText)
	}
	if e.Kind == fault.Internal && x.req.HTTP.Context().Err() == nil {
		v.log.Error("request failed", "service", v.Name, "request_id", x.req.RequestID, "method", x.req.HTTP.Method,
			"path", x.req.HTTP.URL.Path, "error", err)
	}
	reply := v.WriteError(x.req, e)
	for key, value := range e.Header {
		reply.With(key, value)
	}
	return reply
}
