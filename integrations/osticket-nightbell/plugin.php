<?php
/*
 * What osTicket shows of this plugin, and where its class is.
 */
return array(
    'id'          => 'nightbell:osticket',
    'version'     => '1.0',
    'name'        => 'Nightbell',
    'author'      => 'Nightbell',
    'description' => 'Tells Nightbell when a ticket becomes critical, gets other people, or is closed.',
    'ost_version' => '1.17',
    'plugin'      => 'nightbell.php:NightbellPlugin',
);
