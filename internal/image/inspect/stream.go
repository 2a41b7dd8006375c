package inspect

import (
	"errors"
	"io"
)

const (
	smallHead = 128 << 10 // enough for every format but the two below
	largeHead = 4 << 20   // VHDX keeps its metadata behind 1 MiB, a VMDK its descriptor where it likes
	tailSize  = 2 << 10
)

// Stream inspects an image while it passes: it is an io.Writer that keeps the beginning and the end. It never holds more than
// 4 MiB, and 128 KiB for most formats.
type Stream struct {
	head []byte
	tail []byte // the newest bytes, at most 2*tailSize before it is cut
	n    int64
	want int
}

// Write takes the next bytes of the image. It never fails.
func (s *Stream) Write(p []byte) (int, error) {
	if s.want == 0 {
		s.want = smallHead
	}
	if room := s.want - len(s.head); room > 0 {
		before := len(s.head)
		s.head = append(s.head, p[:min(room, len(p))]...)
		if before < 512 && len(s.head) >= 512 {
			switch (&file{r: s, size: int64(len(s.head))}).detect() {
			case VHDX, VMDK:
				s.want = largeHead
				if more := len(p) - room; more > 0 {
					s.head = append(s.head, p[room:min(len(p), room+s.want-len(s.head))]...)
				}
			}
		}
	}
	s.n += int64(len(p))
	if len(p) >= tailSize {
		s.tail = append(s.tail[:0], p[len(p)-tailSize:]...)
	} else if s.tail = append(s.tail, p...); len(s.tail) > tailSize {
		s.tail = append(s.tail[:0], s.tail[len(s.tail)-tailSize:]...)
	}
	return len(p), nil
}

// Size is how many bytes came.
func (s *Stream) Size() int64 { return s.n }

// Early judges what has come so far, so that a long upload need not go on for nothing. It reports only what is certain:
// an image whose header is not all there yet passes. Check gives the final word.
func (s *Stream) Early(p Policy) error {
	if len(s.head) < min(smallHead, s.want) || s.want == 0 {
		return nil
	}
	f := &file{r: s, size: s.n}
	switch f.detect() {
	case QCOW2, QED, VDI:
		_, err := Check(s, s.n, p)
		return err
	}
	return nil
}

// Check is the function Check on the whole stream, to be called after its end.
func (s *Stream) Check(p Policy) (Info, error) { return Check(s, s.n, p) }

var errGap = errors.New("this part of the stream was not kept")

// ReadAt reads from what was kept.
func (s *Stream) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errGap
	}
	got := 0
	for got < len(b) {
		at := off + int64(got)
		start := s.n - int64(len(s.tail)) // of the tail
		switch {
		case at >= max(s.n, int64(len(s.head))):
			return got, io.EOF
		case at < int64(len(s.head)):
			got += copy(b[got:], s.head[at:])
		case at >= start:
			got += copy(b[got:], s.tail[at-start:])
		default:
			return got, errGap
		}
	}
	return got, nil
}
