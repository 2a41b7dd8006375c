package cloud

import (
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

const auditLayout = "2006-01-02 15:04:05"

// The audit log tells which hosts have run the task that counts usage for a month. Kilonova has no such task, since reports are made from the
// servers' own records: every host stands among those that have not run it.

func (a api) listAudit(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.audit(r, "instance_usage_audit_logs", clock.Now())
}

func (a api) showAudit(r *httpapi.Request) (*httpapi.Reply, error) {
	before, err := time.Parse(auditLayout, r.Path("id"))
	if err != nil {
		if before, err = time.Parse(auditLayout+".999999", r.Path("id")); err != nil {
			return nil, fault.New(fault.Invalid, "Invalid timestamp for date %s", r.Path("id"))
		}
	}
	return a.audit(r, "instance_usage_audit_log", before)
}

// audit is the report of the last whole month before a time.
func (a api) audit(r *httpapi.Request, key string, before time.Time) (*httpapi.Reply, error) {
	end := time.Date(before.Year(), before.Month(), 1, 0, 0, 0, 0, time.UTC)
	hosts, err := a.Store.Hosts(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	names := []string{}
	for i := range hosts {
		names = append(names, hosts[i].Name)
	}
	return reply(key, document{"period_beginning": end.AddDate(0, -1, 0).Format(auditLayout), "period_ending": end.Format(auditLayout),
		"num_hosts": len(names), "num_hosts_done": 0, "num_hosts_running": 0, "num_hosts_not_run": len(names), "hosts_not_run": names,
		"total_instances": 0, "total_errors": 0, "overall_status": fmt.Sprintf("0 of %d hosts done. 0 errors.", len(names)), "log": document{}}), nil
}
