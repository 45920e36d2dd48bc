<?php
/*
 * Tells Nightbell of tickets. Everything that happens in one request is sent once, after the page has gone to the agent, and
 * Nightbell has 2 seconds for it: nobody waits. Nothing is repeated here; what is lost Nightbell finds by its own poll.
 */
require_once INCLUDE_DIR . 'class.plugin.php';
require_once INCLUDE_DIR . 'class.signal.php';
require_once __DIR__ . '/config.php';
require_once __DIR__ . '/sender.php';

class NightbellPlugin extends Plugin
{
    public $config_class = 'NightbellConfig';

    /** The tickets of this request, by their ids. Signals of one ticket come several times. */
    private static $touched = array();
    private static $settings = array();

    public function bootstrap()
    {
        $config = $this->getConfig();
        $settings = array(
            'url'        => trim((string) $config->get('url')),
            'secret'     => trim((string) $config->get('secret')),
            'confidence' => trim((string) $config->get('confidence_field')),
            'hours'      => trim((string) $config->get('hours_field')),
        );
        if (!$settings['url'] || !$settings['secret']) {
            return;
        }
        // Instances that tell several Nightbells.
        if (!self::$settings) {
            register_shutdown_function(array(__CLASS__, 'tell'));
        }
        self::$settings[] = $settings;
        $touch = function ($object) {
            self::touch($object);
        };
        Signal::connect('ticket.created', $touch);
        Signal::connect('model.updated', $touch, 'Ticket');
        Signal::connect('object.edited', $touch, 'Ticket');
    }

    private static function touch($ticket)
    {
        if ($ticket instanceof Ticket && $ticket->getId()) {
            self::$touched[$ticket->getId()] = true;
        }
    }

    /** Runs when the request is over. */
    public static function tell()
    {
        if (!self::$touched) {
            return;
        }
        // With PHP-FPM the page is with the agent from here on.
        if (function_exists('fastcgi_finish_request')) {
            fastcgi_finish_request();
        }
        foreach (array_keys(self::$touched) as $id) {
            foreach (self::$settings as $settings) {
                try {
                    // Anew: what the request has in memory may be older than what it has written.
                    $ticket = Ticket::lookup(array('ticket_id' => $id));
                    if ($ticket) {
                        NightbellSender::send($settings['url'], $settings['secret'], self::describe($ticket, $settings));
                    }
                } catch (\Throwable $error) {
                    // A ticket must not fail for this.
                    error_log('Nightbell was not told of ticket ' . $id . ': ' . $error->getMessage());
                }
            }
        }
    }

    /** The event of Nightbell that says what a ticket is now. */
    private static function describe(Ticket $ticket, array $settings)
    {
        global $cfg;

        // From the database: the ticket remembers what stood in its form before this request.
        $answers = $ticket->loadDynamicData(true) ?: array();
        $priority = $ticket->getPriority();
        $about = array(
            'id'      => (string) $ticket->getId(),
            'number'  => (string) $ticket->getNumber(),
            'subject' => (string) $ticket->getSubject() ?: '(no subject)',
            // Its own word: which of them are critical stands in Nightbell's configuration.
            'urgency' => $priority ? (string) $priority->getTag() : 'normal',
            'url'     => rtrim($cfg->getBaseUrl(), '/') . '/scp/tickets.php?id=' . $ticket->getId(),
        );
        if ($department = $ticket->getDept()) {
            $about['group'] = (string) $department->getName();
        }
        if (($confidence = self::figure($answers, $settings['confidence'], 100)) !== null) {
            $about['ai'] = array('confidence_percent' => $confidence);
        }
        if (($hours = self::figure($answers, $settings['hours'], 100000)) !== null) {
            $about['estimated_hours'] = $hours;
        }
        $event = array(
            'type'        => $ticket->isOpen() ? 'ticket.urgency_changed' : 'ticket.closed',
            'occurred_at' => gmdate('Y-m-d\TH:i:s\Z'),
            'ticket'      => $about,
            'recipients'  => self::recipients($ticket),
        );
        if ($owner = $ticket->getOwner()) {
            $organisation = $owner->getOrganization();
            $event['client'] = array_filter(array(
                'name'         => (string) $owner->getName(),
                'organisation' => $organisation ? (string) $organisation->getName() : null,
            ));
        }
        return $event;
    }

    /** Who is to be told: the assignee, the members and the lead of the team, the manager of the department and of the client. */
    private static function recipients(Ticket $ticket)
    {
        $recipients = array();
        $add = function ($staff, $role) use (&$recipients) {
            if (!$staff instanceof Staff || !$staff->isActive() || isset($recipients[$staff->getId()])) {
                return;
            }
            $phone = trim((string) ($staff->mobile ?: $staff->phone));
            $recipients[$staff->getId()] = array_filter(array(
                'staff_id' => (string) $staff->getId(),
                'login'    => (string) $staff->getUserName(),
                'email'    => (string) $staff->getEmail(),
                'role'     => $role,
                'name'     => (string) $staff->getName(),
                'phone'    => $phone,
            ));
        };
        $add($ticket->getStaff(), 'assignee');
        if ($team = $ticket->getTeam()) {
            $add($team->getTeamLead(), 'manager');
            foreach ($team->getMembers() as $member) {
                $add($member, 'team');
            }
        }
        if ($department = $ticket->getDept()) {
            $add($department->getManager(), 'manager');
        }
        $owner = $ticket->getOwner();
        if ($owner && ($organisation = $owner->getOrganization())) {
            $manager = method_exists($organisation, 'getAccountManager') ? $organisation->getAccountManager() : null;
            if ($manager instanceof Team) {
                $manager = $manager->getTeamLead();
            }
            $add($manager, 'project_manager');
        }
        return array_slice(array_values($recipients), 0, 100);
    }

    /** A number in a field of the admin's own, or null. */
    private static function figure($answers, $variable, $most)
    {
        $variable = strtolower($variable);
        if ($variable === '' || !isset($answers[$variable])) {
            return null;
        }
        $text = trim(str_replace(array(',', '%'), array('.', ''), (string) $answers[$variable]));
        return is_numeric($text) && $text >= 0 && $text <= $most ? (float) $text : null;
    }
}
