package fake

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/compute/virt"
	"kilonova/internal/fault"
)

// consoleLife is how long a console that nobody asks for keeps listening.
const consoleLife = 15 * time.Minute

// The played screen's size in pixels.
const screenWidth, screenHeight = 640, 400

// consoles are the screens and serial lines of a host's guests that somebody has asked for: each is a listener on loopback that lives until the guest
// stops, leaves, or nobody has asked for it for a while.
type consoles struct {
	mu   sync.Mutex
	open map[line]*listener
	shut bool
}

type line struct{ guest, kind string }

type listener struct {
	net.Listener
	conns map[net.Conn]struct{}
}

// Console implements virt.Consoler: a screen that shows one colour and takes keys (RFB 3.8), or a serial line that tells the console log and then echoes.
func (d *Driver) Console(ctx context.Context, id, kind string) (*virt.ConsoleEndpoint, error) {
	var serve func(net.Conn, *guest) error
	switch kind {
	case "vnc":
		serve = playScreen
	case "serial":
		serve = playSerial
	default:
		return nil, fault.New(fault.NotImplemented, "The fake hypervisor has no %s console.", kind)
	}
	g, err := d.present(ctx, d.cfg.DB, id)
	if err != nil {
		return nil, err
	}
	if err := wantRunning(g); err != nil && g.Power != virt.Paused {
		return nil, err
	}
	at, err := d.consoles.listen(ctx, line{id, kind}, func(c net.Conn) error { return serve(c, g) })
	if err != nil {
		return nil, err
	}
	return &virt.ConsoleEndpoint{Kind: kind, Host: at.IP.String(), Port: at.Port}, nil
}

func (c *consoles) listen(ctx context.Context, at line, serve func(net.Conn) error) (*net.TCPAddr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return nil, fault.New(fault.Unavailable, "The host's agent stops.")
	}
	l := c.open[at]
	if l == nil {
		nl, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("console of guest %s: %w", at.guest, err)
		}
		l = &listener{Listener: nl, conns: map[net.Conn]struct{}{}}
		if c.open == nil {
			c.open = map[line]*listener{}
		}
		c.open[at] = l
		go c.accept(at, l, serve)
	}
	if err := l.Listener.(*net.TCPListener).SetDeadline(clock.Now().Add(consoleLife)); err != nil {
		return nil, fmt.Errorf("console of guest %s: %w", at.guest, err)
	}
	return l.Addr().(*net.TCPAddr), nil
}

// accept serves a console until its listener is closed or times out.
func (c *consoles) accept(at line, l *listener, serve func(net.Conn) error) {
	for {
		conn, err := l.Accept()
		c.mu.Lock()
		if err != nil {
			if c.open[at] == l {
				delete(c.open, at)
			}
			c.mu.Unlock()
			_ = l.Close()
			return
		}
		l.conns[conn] = struct{}{}
		c.mu.Unlock()
		go func() {
			_ = serve(conn) // it ends when the client or the guest goes: nobody is left to tell
			_ = conn.Close()
			c.mu.Lock()
			delete(l.conns, conn)
			c.mu.Unlock()
		}()
	}
}

// end closes the consoles of a guest that has stopped or gone; of all guests when the id is empty.
func (c *consoles) end(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, l := range c.open {
		if id != "" && at.guest != id {
			continue
		}
		_ = l.Close()
		for conn := range l.conns {
			_ = conn.Close()
		}
		delete(c.open, at)
	}
	c.shut = c.shut || id == ""
}

// playSerial tells the console log and echoes what is typed.
func playSerial(c net.Conn, g *guest) error {
	for _, s := range g.Console {
		if _, err := io.WriteString(c, s+"\r\n"); err != nil {
			return err
		}
	}
	_, err := io.Copy(c, c)
	return err
}

// playScreen is the server's side of RFB 3.8 (RFC 6143) without authentication. Keys and the pointer are read and forgotten.
func playScreen(c net.Conn, g *guest) error {
	if _, err := io.WriteString(c, "RFB 003.008\n"); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	if _, err := in.Discard(12); err != nil { // the client's version
		return err
	}
	if _, err := c.Write([]byte{1, 1}); err != nil { // one security type: none
		return err
	}
	if kind, err := in.ReadByte(); err != nil || kind != 1 {
		return errors.Join(err, errors.New("the client wants another security type"))
	}
	if _, err := c.Write([]byte{0, 0, 0, 0}); err != nil {
		return err
	}
	if _, err := in.ReadByte(); err != nil { // shared or not
		return err
	}
	name := g.Spec.Display
	if name == "" {
		name = g.Name
	}
	format := pixelFormat{32, 24, 0, 1, 255, 255, 255, 16, 8, 0}
	hello := binary.BigEndian.AppendUint16(nil, screenWidth)
	hello = binary.BigEndian.AppendUint16(hello, screenHeight)
	hello = append(append(hello, format.bytes()...), 0, 0, 0)
	hello = binary.BigEndian.AppendUint32(hello, uint32(len(name)))
	if _, err := c.Write(append(hello, name...)); err != nil {
		return err
	}
	for {
		if err := screenMessage(in, c, &format); err != nil {
			return err
		}
	}
}

// screenMessage reads one message of the client and answers it.
func screenMessage(in *bufio.Reader, out io.Writer, format *pixelFormat) error {
	kind, err := in.ReadByte()
	if err != nil {
		return err
	}
	size, ok := map[byte]int{0: 19, 2: 3, 3: 9, 4: 7, 5: 5, 6: 7}[kind]
	if !ok {
		return fmt.Errorf("unknown message type %d", kind)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(in, body); err != nil {
		return err
	}
	switch kind {
	case 0: // SetPixelFormat
		return format.parse(body[3:])
	case 2: // SetEncodings: raw is always allowed
		_, err = in.Discard(4 * int(binary.BigEndian.Uint16(body[1:])))
	case 6: // ClientCutText
		n := int32(binary.BigEndian.Uint32(body[3:]))
		_, err = in.Discard(int(max(n, -n))) // negative: the extended clipboard's way
	case 3: // FramebufferUpdateRequest: what is there does not change
		if body[0] == 0 {
			_, err = out.Write(format.picture())
		}
	}
	return err
}

// pixelFormat of RFB: how a client wants its pixels.
type pixelFormat struct {
	bits, depth, bigEndian, trueColour byte
	redMax, greenMax, blueMax          uint16
	redShift, greenShift, blueShift    byte
}

func (f *pixelFormat) bytes() []byte {
	b := []byte{f.bits, f.depth, f.bigEndian, f.trueColour}
	for _, m := range []uint16{f.redMax, f.greenMax, f.blueMax} {
		b = binary.BigEndian.AppendUint16(b, m)
	}
	return append(b, f.redShift, f.greenShift, f.blueShift)
}

func (f *pixelFormat) parse(b []byte) error {
	n := pixelFormat{b[0], b[1], b[2], b[3], binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[8:]), b[10], b[11], b[12]}
	if n.bits != 8 && n.bits != 16 && n.bits != 32 {
		return fmt.Errorf("pixels of %d bits", n.bits)
	}
	*f = n
	return nil
}

// picture is a whole screen of one colour as a FramebufferUpdate in raw encoding.
func (f *pixelFormat) picture() []byte {
	const red, green, blue = 30, 60, 120 // of 255
	v := uint32(red)*uint32(f.redMax)/255<<(f.redShift&31) | uint32(green)*uint32(f.greenMax)/255<<(f.greenShift&31) | uint32(blue)*uint32(f.blueMax)/255<<(f.blueShift&31)
	out := []byte{0, 0, 0, 1, 0, 0, 0, 0}
	out = binary.BigEndian.AppendUint16(out, screenWidth)
	out = binary.BigEndian.AppendUint16(out, screenHeight)
	out = append(out, 0, 0, 0, 0)
	var order binary.AppendByteOrder = binary.LittleEndian
	if f.bigEndian != 0 {
		order = binary.BigEndian
	}
	for range screenWidth * screenHeight {
		switch f.bits {
		case 8:
			out = append(out, byte(v))
		case 16:
			out = order.AppendUint16(out, uint16(v))
		default:
			out = order.AppendUint32(out, v)
		}
	}
	return out
}
