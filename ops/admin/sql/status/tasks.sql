select q.kind, x.state, x.count
  from report.queue q,
       lateral (values ('ready', q.ready), ('leased', q.leased), ('submitted', q.submitted), ('done', q.done), ('discarded', q.discarded),
                       ('parked', q.parked)) x (state, count)
 where x.count > 0
 order by q.kind, x.state
