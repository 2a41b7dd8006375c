// Package bus carries calls and wake-ups between the roles. It never carries the truth: losing any message costs
// time and nothing else, because every receiver also looks for its work by itself.
package bus

import (
	"context"
	"errors"
)

// ErrNoResponder is what Call returns at once when nobody serves the subject.
var ErrNoResponder = errors.New("bus: nobody serves this subject")

// Handler answers one message. For a Cast or Fanout the reply is dropped. The error's fault.Kind and public text
// reach the caller of Call as a fault.Error; of its cause nothing does but fault.ErrAway.
type Handler func(ctx context.Context, subject string, msg []byte) ([]byte, error)

// Bus is the message queue. Subjects are dot-separated tokens ("agent.HOST.command"); a token never holds dots or
// blanks: use Token for names that might.
type Bus interface {
	// Call sends msg to one of those who serve subject and waits for the answer until ctx ends.
	Call(ctx context.Context, subject string, msg []byte) ([]byte, error)
	// Cast sends msg to at most one of those who serve subject. Nothing tells whether it arrived.
	Cast(ctx context.Context, subject string, msg []byte) error
	// Fanout sends msg to everybody who serves subject with an empty queue name.
	Fanout(ctx context.Context, subject string, msg []byte) error
	// Serve answers subject until stop is called. Servers with the same queue name share the messages; with an empty
	// queue name each gets every message. Each message runs in its own goroutine.
	Serve(subject, queue string, h Handler) (stop func(), err error)
	// ServeEach is Serve for many subjects with one handler, which costs little for each of them. The queue name is not empty.
	ServeEach(subjects []string, queue string, h Handler) (stop func(), err error)
	// Close ends all servers and waits for their handlers.
	Close() error
}

// Token makes any name usable as one token of a subject.
func Token(name string) string {
	out := make([]byte, 0, len(name))
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			out = append(out, c)
		default:
			out = append(out, '%', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		}
	}
	return string(out)
}
