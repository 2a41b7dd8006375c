package rpc

import "context"

// DomainByUUID gives the domain with the UUID.
func (c *Client) DomainByUUID(ctx context.Context, u UUID) (d Domain, err error) {
	err = c.call(ctx, procDomainLookupByUUID, []any{u}, &d)
	return d, err
}

// Domains lists the domains; flags ListActive, ListInactive, 0 for all.
func (c *Client) Domains(ctx context.Context, flags uint32) (all []Domain, err error) {
	err = c.call(ctx, procConnectListAllDomains, []any{int32(1), flags}, &all)
	return all, err
}

// State gives a domain's state and its reason.
func (c *Client) State(ctx context.Context, d Domain) (state, reason int32, err error) {
	err = c.call(ctx, procDomainGetState, []any{d, uint32(0)}, &state, &reason)
	return state, reason, err
}

// DomainInfo is the size and use of a domain: KiB and nanoseconds.
type DomainInfo struct {
	State, VCPUs               uint32
	MaxMemory, Memory, CPUTime uint64
}

// VCPU is the state of one virtual CPU.
type VCPU struct {
	Number uint32
	State  int32
	Time   uint64 // nanoseconds
	CPU    int32
}

// VCPUs gives at most n virtual CPUs of a running domain.
func (c *Client) VCPUs(ctx context.Context, d Domain, n int32) (all []VCPU, err error) {
	var maps []byte
	err = c.call(ctx, procDomainGetVcpus, []any{d, n, int32(0)}, func(x *decoder) {
		all = list(x, 20, func() VCPU { return VCPU{x.u32(), int32(x.u32()), x.u64(), int32(x.u32())} })
	}, &maps)
	return all, err
}

// XML gives the domain's definition; flags XMLSecure, XMLInactive.
func (c *Client) XML(ctx context.Context, d Domain, flags uint32) (xml string, err error) {
	err = c.call(ctx, procDomainGetXMLDesc, []any{d, flags}, &xml)
	return xml, err
}

// Define makes or replaces a persistent domain.
func (c *Client) Define(ctx context.Context, xml string, flags uint32) (d Domain, err error) {
	err = c.call(ctx, procDomainDefineXML, []any{xml, flags}, &d)
	return d, err
}

// Undefine removes the definition.
func (c *Client) Undefine(ctx context.Context, d Domain, flags uint32) error {
	return c.call(ctx, procDomainUndefine, []any{d, flags})
}

// Create starts a defined domain, from its managed save image when there is one.
func (c *Client) Create(ctx context.Context, d Domain, flags uint32) (started Domain, err error) {
	err = c.call(ctx, procDomainCreate, []any{d, flags}, &started)
	return started, err
}

// Destroy stops a domain at once.
func (c *Client) Destroy(ctx context.Context, d Domain, flags uint32) error {
	return c.call(ctx, procDomainDestroy, []any{d, flags})
}

// Shutdown asks the guest to shut down.
func (c *Client) Shutdown(ctx context.Context, d Domain, flags uint32) error {
	return c.call(ctx, procDomainShutdown, []any{d, flags})
}

// Suspend freezes a domain in memory.
func (c *Client) Suspend(ctx context.Context, d Domain) error {
	return c.call(ctx, procDomainSuspend, []any{d})
}

// Resume thaws it.
func (c *Client) Resume(ctx context.Context, d Domain) error {
	return c.call(ctx, procDomainResume, []any{d})
}

// ManagedSave writes the memory to disk and stops the domain.
func (c *Client) ManagedSave(ctx context.Context, d Domain, flags uint32) error {
	return c.call(ctx, procDomainManagedSave, []any{d, flags})
}

// HasManagedSave tells whether there is such an image.
func (c *Client) HasManagedSave(ctx context.Context, d Domain) (bool, error) {
	var n int32
	err := c.call(ctx, procDomainHasManagedSave, []any{d, uint32(0)}, &n)
	return n != 0, err
}

// RemoveManagedSave drops the image.
func (c *Client) RemoveManagedSave(ctx context.Context, d Domain) error {
	return c.call(ctx, procDomainManagedSaveRemove, []any{d, uint32(0)})
}

// IsActive tells whether the domain runs.
func (c *Client) IsActive(ctx context.Context, d Domain) (on bool, err error) {
	err = c.call(ctx, procDomainIsActive, []any{d}, &on)
	return on, err
}

// IsPersistent tells whether the domain is defined.
func (c *Client) IsPersistent(ctx context.Context, d Domain) (on bool, err error) {
	err = c.call(ctx, procDomainIsPersistent, []any{d}, &on)
	return on, err
}

// Attach adds a device; flags AffectLive, AffectConfig.
func (c *Client) Attach(ctx context.Context, d Domain, xml string, flags uint32) error {
	return c.call(ctx, procDomainAttachDevice, []any{d, xml, flags})
}

// Detach removes a device. For a running guest that is a request: DeviceRemoved tells when the guest has let go.
func (c *Client) Detach(ctx context.Context, d Domain, xml string, flags uint32) error {
	return c.call(ctx, procDomainDetachDevice, []any{d, xml, flags})
}

// BlockJobInfo is the progress of a block job; Type 0 when there is none.
type BlockJobInfo struct {
	Type                int32
	Bandwidth, Cur, End uint64
}

// Freeze asks the guest agent to freeze the file systems; it gives how many.
func (c *Client) Freeze(ctx context.Context, d Domain) (n int32, err error) {
	err = c.call(ctx, procDomainFSFreeze, []any{d, []string(nil), uint32(0)}, &n)
	return n, err
}

// Thaw undoes Freeze.
func (c *Client) Thaw(ctx context.Context, d Domain) (n int32, err error) {
	err = c.call(ctx, procDomainFSThaw, []any{d, []string(nil), uint32(0)}, &n)
	return n, err
}

// SetUserPassword sets a password through the guest agent.
func (c *Client) SetUserPassword(ctx context.Context, d Domain, user, password string) error {
	return c.call(ctx, procDomainSetUserPassword, []any{d, opt(user), opt(password), uint32(0)})
}

// InjectNMI sends the guest a non-maskable interrupt.
func (c *Client) InjectNMI(ctx context.Context, d Domain) error {
	return c.call(ctx, procDomainInjectNMI, []any{d, uint32(0)})
}

// BlockStats are counters of a disk.
type BlockStats struct{ ReadReqs, ReadBytes, WriteReqs, WriteBytes, Errors int64 }

// InterfaceStats are counters of an interface, as the host sees it.
type InterfaceStats struct {
	RxBytes, RxPackets, RxErrors, RxDrop, TxBytes, TxPackets, TxErrors, TxDrop int64
}

// MemoryStats gives memory counters by libvirt's tag (4 unused, 5 available, 6 balloon, 7 resident, 8 usable), in KiB.
func (c *Client) MemoryStats(ctx context.Context, d Domain) (map[int32]uint64, error) {
	out := map[int32]uint64{}
	err := c.call(ctx, procDomainMemoryStats, []any{d, uint32(64), uint32(0)}, func(x *decoder) {
		for range x.count(12) {
			tag := int32(x.u32())
			out[tag] = x.u64()
		}
	})
	return out, err
}

// Metadata gives the element of namespace uri.
func (c *Client) Metadata(ctx context.Context, d Domain, uri string, flags uint32) (xml string, err error) {
	err = c.call(ctx, procDomainGetMetadata, []any{d, int32(2), opt(uri), flags}, &xml)
	return xml, err
}

// AgentCommand sends the guest agent a JSON command; timeout in seconds.
func (c *Client) AgentCommand(ctx context.Context, d Domain, command string, timeout int32) (string, error) {
	var out opt
	err := c.call(ctx, procQEMUAgentCommand, []any{d, command, timeout, uint32(0)}, &out)
	return string(out), err
}

// MigrateToURI moves a running domain to the daemon at dest; the two daemons arrange it between them (peer to peer). It returns when it is over.
func (c *Client) MigrateToURI(ctx context.Context, d Domain, dest string, params []Param, flags uint32) error {
	var cookie []byte
	return c.call(ctx, procMigratePerform3Params, []any{d, opt(dest), params, []byte(nil), flags | MigratePeer2Peer}, &cookie)
}

// StartPostCopy ends the copying phase of a migration that was started with MigratePostCopy.
func (c *Client) StartPostCopy(ctx context.Context, d Domain) error {
	return c.call(ctx, procMigrateStartPostCopy, []any{d, uint32(0)})
}

// JobStats gives the type and the counters of the domain's job; with JobStatsCompleted of the one that ended last.
func (c *Client) JobStats(ctx context.Context, d Domain, flags uint32) (kind int32, params []Param, err error) {
	err = c.call(ctx, procDomainGetJobStats, []any{d, flags}, &kind, &params)
	return kind, params, err
}

// AbortJob ends the domain's job.
func (c *Client) AbortJob(ctx context.Context, d Domain) error {
	return c.call(ctx, procDomainAbortJob, []any{d})
}

// ManagedSaveXML gives the definition that the saved memory belongs to.
func (c *Client) ManagedSaveXML(ctx context.Context, d Domain, flags uint32) (xml string, err error) {
	err = c.call(ctx, procManagedSaveGetXML, []any{d, flags}, &xml)
	return xml, err
}

// SetManagedSaveXML changes what of it may be changed.
func (c *Client) SetManagedSaveXML(ctx context.Context, d Domain, xml string) error {
	return c.call(ctx, procManagedSaveDefineXML, []any{d, opt(xml), uint32(0)})
}

// BackupBegin starts a backup job.
func (c *Client) BackupBegin(ctx context.Context, d Domain, xml string) error {
	return c.call(ctx, procDomainBackupBegin, []any{d, xml, opt(""), uint32(0)})
}
