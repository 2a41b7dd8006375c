package app

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/proxy"
	"kilonova/internal/compute/command"
	"kilonova/internal/compute/conductor"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/reconcile"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/compute/scheduler/filter"
	"kilonova/internal/compute/scheduler/weigher"
	"kilonova/internal/compute/store"
	"kilonova/internal/operation"
	"kilonova/internal/policy"
)

// startStore opens compute's tables and the operation engine, which API roles accept with and conductors run.
func (a *App) startStore(ctx context.Context) error {
	sole, private := false, a.cfg.Bus.URL == "" && a.cfg.Bus.Listen == ""
	if a.has(Conductor) {
		var err error
		if sole, err = a.alone(private); err != nil {
			return err
		}
	}
	e, err := operation.New(ctx, operation.Config{DB: a.db, Bus: a.bus, Owner: fmt.Sprintf("%s/%d", a.cfg.Compute.Host, os.Getpid()), Sole: sole,
		Private: sole && private, // otherwise another conductor may come
		Workers: a.cfg.Compute.Workers})
	if err != nil {
		return err
	}
	a.parts.engine = e
	if a.parts.store, err = store.New(ctx, a.db); err != nil {
		return err
	}
	a.parts.store.Zone = a.cfg.Compute.DefaultZone
	a.parts.agents = &command.Client{Bus: a.bus}
	return a.startNotifier(ctx)
}

// newConductor makes what conductors and schedulers have in common. Nothing runs yet.
func (a *App) newConductor(ctx context.Context, remoteSchedulers bool) (*conductor.Conductor, error) {
	cc := a.cfg.Compute
	sc, err := a.schedulerConfig()
	if err != nil {
		return nil, err
	}
	planner, err := scheduler.New(sc, filter.All(), weigher.All())
	if err != nil {
		return nil, err
	}
	aliases, err := compute.ParsePCIAliases(a.cfg.PCI.Alias, sc.PCIInPlacement)
	if err != nil {
		return nil, err
	}
	if err := a.openVendor(); err != nil {
		return nil, err
	}
	return conductor.New(ctx, conductor.Config{DB: a.db, Bus: a.bus, Store: a.parts.store, Engine: a.parts.engine, Network: a.parts.network,
		Image: a.parts.images, Placement: a.parts.placement, Metadata: a.metadataInput, Planner: planner, PCIAliases: aliases, Schedulers: remoteSchedulers,
		Flow:            flow.Config{MaxAttempts: a.cfg.Placing.MaxAttempts, LiveAttempts: max(a.cfg.Placing.MigrateRetries+1, 0), StopGrace: cc.ShutdownTimeout, AllowSameHost: cc.ResizeSameHost},
		Reconcile:       reconcile.Config{ReclaimAfter: cc.ReclaimInterval, ConfirmAfter: cc.ResizeConfirm, OffloadAfter: cc.ShelvedOffload},
		ServiceDownTime: cc.ServiceDownTime,
	})
}

func (a *App) startConductor(ctx context.Context) error {
	c, err := a.newConductor(ctx, !a.has(Scheduler))
	if err != nil {
		return err
	}
	a.announce(conductor.BinaryConductor)
	if a.has(Scheduler) {
		a.announce(conductor.BinaryScheduler)
	}
	return a.untilReady(ctx, "conductor", c.Run)
}

// startScheduler runs a scheduler for conductors in other processes. A conductor of this process chooses hosts by itself.
func (a *App) startScheduler(ctx context.Context) error {
	if a.has(Conductor) {
		return nil
	}
	c, err := a.newConductor(ctx, false)
	if err != nil {
		return err
	}
	a.announce(conductor.BinaryScheduler)
	return a.untilReady(ctx, "scheduler", c.RunScheduler)
}

func (a *App) announce(binary string) {
	a.background("record of "+binary, func(ctx context.Context) error {
		conductor.Announce(ctx, a.parts.store, binary, a.cfg.Compute.Host, a.log)
		return nil
	})
}

// untilReady runs a part in the background and waits until it says that it serves.
func (a *App) untilReady(ctx context.Context, name string, run func(ctx context.Context, ready func()) error) error {
	ready := make(chan struct{})
	var once sync.Once
	a.background(name, func(ctx context.Context) error { return run(ctx, func() { once.Do(func() { close(ready) }) }) })
	select {
	case <-ready:
		return nil
	case err := <-a.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *App) schedulerConfig() (scheduler.Config, error) {
	return SchedulerConfig(a.cfg)
}

func (a *App) startComputeAPI(context.Context) error {
	cc, q := a.cfg.Compute, a.cfg.Quota
	e, err := a.enforcer("compute", policy.ForProjects(api.Rules()))
	if err != nil {
		return err
	}
	aliases, err := compute.ParsePCIAliases(a.cfg.PCI.Alias, a.cfg.Scheduler.PCIInPlacement)
	if err != nil {
		return err
	}
	period, err := compute.ParseAuditPeriod(a.cfg.Notifications.AuditPeriod)
	if err != nil {
		return err
	}
	s, err := api.New(api.Config{
		Services: backend.Services{Store: a.parts.store, Operations: a.parts.engine, Reader: a.parts.engine, Images: a.parts.images, Network: a.parts.network,
			Placement: a.parts.placement, Agents: a.parts.agents, Projects: a.parts.projects},
		Options: backend.Options{
			Quota: store.Limits{"instances": q.Instances, "cores": q.Cores, "ram": q.RAM, "metadata_items": q.MetadataItems, "key_pairs": q.KeyPairs,
				"server_groups": q.ServerGroups, "server_group_members": q.ServerGroupMembers, "injected_files": q.InjectedFiles,
				"injected_file_content_bytes": q.InjectedBytes, "injected_file_path_bytes": q.InjectedPath},
			MaxLimit: a.cfg.API.MaxLimit, DefaultZone: cc.ScheduleZone, ServiceDownTime: cc.ServiceDownTime, ReclaimInterval: cc.ReclaimInterval,
			ShelvedOffload: cc.ShelvedOffload, ConsoleURLs: a.consoleURLs(), ConsoleTTL: a.cfg.Console.TokenTTL, AuditPeriod: period, PCIAliases: aliases, AnswerWait: time.Minute,
		},
		Proxy: proxy.Options{ImageURL: a.URL() + "/image", Network: a.networkDoor()},
		Auth:  a.parts.auth, Policy: e, Log: a.log,
	})
	if err != nil {
		return err
	}
	return a.web.mount("compute", s)
}

// networkDoor is how the compute API's old network routes reach the network API: in this process when it is here.
func (a *App) networkDoor() *proxy.Network {
	if h := a.web.inner["network"]; h != nil {
		return proxy.InProcess(h)
	}
	return proxy.Remote(a.URL()+"/network", &http.Client{Timeout: time.Minute})
}
