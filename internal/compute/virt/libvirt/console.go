package libvirt

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
	"kilonova/internal/compute/virt/libvirt/rpc"
	"kilonova/internal/fault"
)

// consoleKept is how much of the log survives a start of the guest; virtlogd bounds it while the guest runs.
const consoleKept = 1 << 20

// ConsoleLog gives the newest part of what the guest wrote to its first serial port.
func (d *Driver) ConsoleLog(ctx context.Context, guest string, lines int, limit int64) ([]byte, error) {
	if _, err := d.domain(ctx, guest); err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = consoleKept
	}
	text, err := tail(d.path(guest, consoleFile), limit)
	if err == nil && int64(len(text)) < limit { // virtlogd has turned the log over
		var older []byte
		older, err = tail(d.path(guest, consoleFile+".0"), limit-int64(len(text)))
		text = append(older, text...)
	}
	if err != nil {
		return nil, fmt.Errorf("read console log: %w", err)
	}
	if lines > 0 {
		text = lastLines(text, lines)
	}
	return text, nil
}

// tail reads the last n bytes of a file; a file that is not there is empty.
func tail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-n), n))
}

// lastLines gives the last n lines; what stands after the last line end counts as one, also when it is nothing, as Nova counts.
func lastLines(text []byte, n int) []byte {
	at := len(text)
	for ; n > 0; n-- {
		at = bytes.LastIndexByte(text[:at], '\n')
		if at < 0 {
			return text
		}
	}
	return text[at+1:]
}

// trimConsole shortens a log that has grown beyond twice what is kept, for hosts whose libvirt does without virtlogd.
func (d *Driver) trimConsole(guest string) {
	path := d.path(guest, consoleFile)
	st, err := os.Stat(path)
	if err != nil || st.Size() <= 2*consoleKept {
		return
	}
	if text, err := tail(path, consoleKept); err == nil {
		_ = os.WriteFile(path, text, 0o600) // a log that cannot be shortened is no reason not to start
	}
}

// Console tells where a console of a running guest can be reached.
func (d *Driver) Console(ctx context.Context, guest, kind string) (*virt.ConsoleEndpoint, error) {
	dom, err := d.domain(ctx, guest)
	if err != nil {
		return nil, err
	}
	if kind != "vnc" && kind != "serial" && kind != "spice" {
		return nil, fault.New(fault.NotImplemented, "The hypervisor has no %s consoles.", kind)
	}
	p, err := d.powerOf(ctx, dom)
	if err != nil {
		return nil, err
	}
	if p != virt.Running && p != virt.Paused {
		return nil, conflict("reached on its console", p)
	}
	x, err := d.definition(ctx, dom, 0)
	if err != nil {
		return nil, err
	}
	if kind != "serial" {
		for _, g := range x.Devices.Graphics {
			if g.Type == kind && g.Port > 0 {
				return &virt.ConsoleEndpoint{Kind: kind, Host: d.reach(g.Listen), Port: g.Port}, nil
			}
		}
		return nil, fault.New(fault.NotImplemented, "The server has no %s display.", strings.ToUpper(kind))
	}
	for _, s := range x.Devices.Serials {
		if s.Source == nil {
			continue
		}
		if port, err := strconv.Atoi(s.Source.Service); err == nil && s.Type == "tcp" {
			return &virt.ConsoleEndpoint{Kind: kind, Host: d.reach(s.Source.Host), Port: port}, nil
		}
	}
	return nil, fault.New(fault.NotImplemented, "The server has no serial console that can be reached.")
}

// reach names the host part under which a proxy finds a port that listens on the address.
func (d *Driver) reach(listen string) string {
	switch {
	case d.c.ConsoleHost != "":
		return d.c.ConsoleHost
	case listen == "" || listen == "0.0.0.0" || listen == "::":
		return d.hostIP()
	}
	return listen
}

// inUse tells whether somebody was quicker: to take a port, that of a serial console or of the display, which libvirt chooses, or to join a new tap to its bridge.
func inUse(err error) bool {
	var e *rpc.Error
	return errors.As(err, &e) && (strings.Contains(e.Message, "Address already in use") ||
		strings.Contains(e.Message, "Unable to add bridge") && strings.Contains(e.Message, "Device or resource busy"))
}

// vanished tells whether QEMU ended while libvirt was starting it, before it said why: worth another try or two.
func vanished(err error, try int) bool {
	return try < 3 && rpc.HasCode(err, rpc.InternalError, rpc.OperationFailed)
}

// portClash tells whether a guest may have failed to start because somebody listens on a port of its serial consoles. QEMU's own words do not always
// reach libvirt in time, so the ports are tried.
func (d *Driver) portClash(text string) bool {
	for _, m := range servicePort.FindAllStringSubmatch(text, -1) {
		if port, err := strconv.Atoi(m[1]); err == nil && !d.portFree(port) {
			return true
		}
	}
	return false
}

var servicePort = regexp.MustCompile(`service='(\d+)'`)

// movePorts gives every serial port in a definition's text that somebody else uses another one.
func (d *Driver) movePorts(text string) (string, error) {
	mine := map[int]bool{}
	var failed error
	text = servicePort.ReplaceAllStringFunc(text, func(s string) string {
		port, _ := strconv.Atoi(servicePort.FindStringSubmatch(s)[1])
		if !d.portFree(port) {
			n, err := d.freePort(mine)
			if err != nil {
				failed = err
				return s
			}
			port = n
		}
		mine[port] = true
		return fmt.Sprintf("service='%d'", port)
	})
	return text, failed
}

// movePort mends the definition that belongs to saved memory; false when its ports are free.
func (d *Driver) movePort(ctx context.Context, dom rpc.Domain) (bool, error) {
	text, err := d.rpc.ManagedSaveXML(ctx, dom, 1) // 1: with secrets
	if err != nil || !d.portClash(text) {
		return false, err
	}
	if text, err = d.movePorts(text); err != nil {
		return false, err
	}
	if err := xml.Unmarshal([]byte(text), &definition.Domain{}); err != nil {
		return false, fmt.Errorf("read saved definition: %w", err)
	}
	return true, d.rpc.SetManagedSaveXML(ctx, dom, text)
}
