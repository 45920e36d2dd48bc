<?php
/*
 * The plugin's form. osTicket never starts a plugin that has no such class, and says nothing of it.
 */
require_once INCLUDE_DIR . 'class.plugin.php';

class NightbellConfig extends PluginConfig
{
    public function getOptions()
    {
        return array(
            'url' => new TextboxField(array(
                'label'         => 'Address of Nightbell',
                'hint'          => 'Like https://nightbell.example.com/v1/hooks/osticket: the last part is the name of the source.',
                'required'      => true,
                'configuration' => array('size' => 60, 'length' => 500),
            )),
            'secret' => new PasswordField(array(
                'label'         => 'Secret',
                'hint'          => 'What Nightbell has as sources.osticket.secret: whsec_ and the base64 of at least 24 random bytes.',
                'required'      => true,
                'configuration' => array('size' => 60, 'length' => 500),
            )),
            'confidence_field' => new TextboxField(array(
                'label'         => 'Variable of the field with the confidence',
                'hint'          => 'Of a field of your own in the ticket form that holds a percentage; blank for none.',
                'default'       => 'ai_confidence',
                'configuration' => array('size' => 30, 'length' => 100),
            )),
            'hours_field' => new TextboxField(array(
                'label'         => 'Variable of the field with the estimated hours',
                'default'       => 'estimated_hours',
                'configuration' => array('size' => 30, 'length' => 100),
            )),
        );
    }

    public function pre_save(&$config, &$errors)
    {
        if (!preg_match('#^https?://[^\s/]+/#i', $config['url'] ?? '')) {
            $errors['err'] = 'The address of Nightbell begins with https:// (or http://) and ends with /v1/hooks/ and the name of the source';
            return false;
        }
        return true;
    }
}
